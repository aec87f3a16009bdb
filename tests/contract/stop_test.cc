// Signals, and that a stop ends whatever the task started (nomad-driver-protocol.md 5.7, 5.11).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>

#include "tests/contract/task_host.h"
#include "tests/support/grpc_matchers.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kId[] = "alloc/agent/1";

class Stopping : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    ASSERT_OK(host_.Launch());
  }
  void TearDown() override {
    if (IsSkipped() || HasFatalFailure()) return;
    EXPECT_THAT(host_.Destroy(kId), Succeeded());
    EXPECT_OK(host_.Quit());
    EXPECT_THAT(host_.Leftovers(), IsEmpty());
  }
  void Start(const std::string& script) {
    nomad::TaskHandle handle;
    ASSERT_THAT(host_.Start(host_.Config(kId, script), &handle), Succeeded());
    ASSERT_TRUE(WaitFor([&] { return std::filesystem::exists(host_.Local("ready")); }));
  }
  // Stops the task; all is gone when StopTask returns. The exit code.
  int StopAndWait(int timeout_ms) {
    EXPECT_THAT(host_.Stop(kId, "SIGTERM", timeout_ms), Succeeded());
    EXPECT_THAT(host_.Payloads(), IsEmpty());
    nomad::WaitTaskResponse response;
    EXPECT_THAT(host_.Wait(kId, &response), Succeeded());
    EXPECT_EQ(response.result().exit_code(), 128 + response.result().signal());
    return response.result().exit_code();
  }

  TaskHost host_{DRIVER_FILE};
};

TEST_F(Stopping, ASignalThatNobodyKnowsIsAnError) {
  Start("touch /local/ready; exec sleep 600");
  EXPECT_THAT(host_.Signal(kId, "SIGNOPE"), FailedWith(HasSubstr("unknown signal 'SIGNOPE'")));
  EXPECT_THAT(host_.Signal("unknown/agent/1", "SIGTERM"), FailedWith(HasSubstr("not known")));
  EXPECT_THAT(host_.Stop(kId, "SIGNOPE", 0), FailedWith(HasSubstr("unknown signal 'SIGNOPE'")));
  EXPECT_THAT(host_.Payloads(), SizeIs(1));
}

TEST_F(Stopping, ACooperativeProgramIsToldAs143) {
  Start("touch /local/ready; exec sleep 600");
  EXPECT_EQ(StopAndWait(10'000), 143);
}

TEST_F(Stopping, AStoppedProcessIsToldAs137) {
  Start("touch /local/ready; kill -STOP $$; sleep 600");
  EXPECT_EQ(StopAndWait(200), 137);
}

TEST_F(Stopping, AStoppedChildGoesToo) {
  Start("sh -c 'kill -STOP $$' & touch /local/ready; exec sleep 600");
  EXPECT_EQ(StopAndWait(10'000), 143);
}

TEST_F(Stopping, ADaemonisedGrandchildGoesToo) {
  Start(
      "(setsid sh -c 'trap \"\" TERM HUP; touch /local/ready; while :; do sleep 1; done' &) &"
      " exec sleep 600");
  EXPECT_EQ(StopAndWait(10'000), 143);
}

TEST_F(Stopping, AForkStormGoesToo) {
  Start("trap '' TERM; touch /local/ready; f() { while :; do f & sleep 0.01; done; }; f");
  ASSERT_TRUE(WaitFor([&] { return host_.Payloads().size() > 100; }));
  EXPECT_EQ(StopAndWait(0), 137);
}

}  // namespace
}  // namespace jenkins_agent
