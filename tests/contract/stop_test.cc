// Signals, and that a stop ends whatever the task started (nomad-driver-protocol.md 5.7, 5.11).
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "driver/base/process.h"
#include "tests/contract/task_test.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class Stopping : public TaskTest {
 protected:
  // Starts it and waits until it is ready.
  void Run(const std::string& script) {
    Start(script);
    ASSERT_TRUE(WaitFor([&] { return std::filesystem::exists(host_.Local("ready")); }));
  }
  // Until one of its processes is stopped.
  void AwaitStopped() {
    ASSERT_TRUE(WaitFor([&] {
      const std::vector<int> pids = host_.Payloads();
      return std::any_of(pids.begin(), pids.end(), ProcessStopped);
    }));
  }
  // Stops the task; all is gone when StopTask returns. The exit code.
  int StopAndWait(int timeout_ms) {
    EXPECT_THAT(host_.Stop(kId, "SIGTERM", timeout_ms), Succeeded());
    EXPECT_THAT(host_.Payloads(), IsEmpty());
    const nomad::WaitTaskResponse response = Wait();
    EXPECT_EQ(response.result().exit_code(), 128 + response.result().signal());
    return response.result().exit_code();
  }
};

TEST_F(Stopping, ASignalThatNobodyKnowsIsAnError) {
  Run("touch /local/ready; exec sleep 600");
  EXPECT_THAT(host_.Signal(kId, "SIGNOPE"), FailedWith(HasSubstr("unknown signal 'SIGNOPE'")));
  EXPECT_THAT(host_.Signal("unknown/agent/1", "SIGTERM"), FailedWith(HasSubstr("not known")));
  EXPECT_THAT(host_.Stop(kId, "SIGNOPE", 0), FailedWith(HasSubstr("unknown signal 'SIGNOPE'")));
  EXPECT_THAT(host_.Payloads(), SizeIs(1));
}

TEST_F(Stopping, ACooperativeProgramIsToldAs143) {
  Run("touch /local/ready; exec sleep 600");
  EXPECT_EQ(StopAndWait(10'000), 143);
}

TEST_F(Stopping, AStoppedProcessIsToldAs137) {
  Run("touch /local/ready; kill -STOP $$; sleep 600");
  AwaitStopped();
  EXPECT_EQ(StopAndWait(200), 137);
}

TEST_F(Stopping, AStoppedChildGoesToo) {
  Run("sh -c 'kill -STOP $$' & touch /local/ready; exec sleep 600");
  AwaitStopped();
  EXPECT_EQ(StopAndWait(10'000), 143);
}

TEST_F(Stopping, ADaemonisedGrandchildGoesToo) {
  Run("(setsid sh -c 'trap \"\" TERM HUP; touch /local/ready; while :; do sleep 1; done' &) &"
      " exec sleep 600");
  EXPECT_EQ(StopAndWait(10'000), 143);
}

// Beside the program, because a shell ends where the pids limit refuses it a fork.
TEST_F(Stopping, AForkStormGoesToo) {
  Run("trap '' TERM; f() { while :; do f & sleep 0.01; done; }; f & touch /local/ready;"
      " exec sleep 600");
  ASSERT_TRUE(WaitFor([&] { return host_.Payloads().size() > 100; }));
  EXPECT_EQ(StopAndWait(0), 137);
}

}  // namespace
}  // namespace jenkins_agent
