// A process of ours dies at each numbered step of a task's life (driver/base/fault.h); then Nomad's
// next calls are replayed as its client makes them (nomad-driver-protocol.md 7.1, appendix C).
// Nothing may be left, and WaitTask must have told the truth.
#include "driver/base/fault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "driver/base/file.h"
#include "tests/contract/task_host.h"
#include "tests/support/grpc_matchers.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::IsEmpty;

constexpr char kId[] = "alloc/agent/1";
constexpr char kUntilToldToGo[] = "until [ -e /local/go ]; do sleep 0.02; done; exit 7";

class Fault : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { REQUIRES_ROOT(); }

  bool InPlugin() const { return absl::StartsWith(GetParam(), "plugin."); }
  bool During(const char* what) const { return absl::StrContains(GetParam(), what); }

  // What Nomad does when a call fails: a dead plugin is launched again, without the fault. True:
  // that was so, the call is to be made again.
  bool RelaunchIfDead(const grpc::Status& status) {
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE) return false;
    plugin_died_ = true;
    EXPECT_OK(host_.AwaitPluginEnd());
    EXPECT_TRUE(InPlugin()) << host_.plugin().stderr_text();
    EXPECT_OK(host_.Launch());
    return true;
  }

  // StartTask once more with the same id when the plugin died in the middle of it.
  grpc::Status Start() {
    const nomad::TaskConfig config = host_.Config(kId, kUntilToldToGo);
    grpc::Status status = host_.Start(config, &handle_);
    if (RelaunchIfDead(status)) status = host_.Start(config, &handle_);
    return status;
  }

  // RecoverTask until a plugin lives through it, then WaitTask again.
  nomad::WaitTaskResponse Wait() {
    nomad::WaitTaskResponse response;
    grpc::Status status = host_.Wait(kId, &response);
    while (RelaunchIfDead(status)) {
      status = host_.Recover(handle_);
      if (status.ok()) status = host_.Wait(kId, &response);
    }
    EXPECT_THAT(status, Succeeded());
    return response;
  }

  TaskHost host_{DRIVER_FILE};
  nomad::TaskHandle handle_;
  bool plugin_died_ = false;
};

TEST_P(Fault, LeavesNothingAndTellsTheTruth) {
  const TaskHost::Settings armed = {.env = {{kFaultVariable, GetParam()}}};
  ASSERT_OK(host_.Launch(During(".recover.") ? TaskHost::Settings() : armed));
  const grpc::Status started = Start();
  if (!InPlugin() && (During(".start.") || During(".launch."))) {
    // Pid 1 may be a step too late to spoil the start; then the task is over at once.
    ASSERT_TRUE(!started.ok() || !During("supervisor.")) << "the point was not passed";
    if (!started.ok()) {
      EXPECT_NE(started.error_message(), "");
      EXPECT_NE(started.error_code(), grpc::StatusCode::UNAVAILABLE);
      EXPECT_THAT(host_.Leftovers(), IsEmpty());
      EXPECT_OK(host_.Quit());
      return;
    }
  } else {
    ASSERT_THAT(started, Succeeded());
  }
  if (During(".recover.")) {
    ASSERT_OK(host_.Crash());
    ASSERT_OK(host_.Launch(armed));
    const grpc::Status recovered = host_.Recover(handle_);
    EXPECT_FALSE(recovered.ok());
    ASSERT_TRUE(RelaunchIfDead(recovered));
    ASSERT_THAT(host_.Recover(handle_), Succeeded());
  }
  ASSERT_OK(WriteFileAtomic(host_.Local("go"), "", 0644));
  const nomad::WaitTaskResponse end = Wait();
  const bool exit_is_known = InPlugin() || During("supervisor.exit.recorded") ||
                             During("supervisor.exit.cgroup_removed") ||
                             During("supervisor.exit.told");
  if (exit_is_known) {
    EXPECT_EQ(end.result().exit_code(), 7);
    EXPECT_EQ(end.err(), "");
  } else {
    EXPECT_NE(end.result().exit_code(), 0);
    EXPECT_TRUE(!end.err().empty() || end.result().signal() == SIGKILL);
  }
  // Nomad does not ask again when the plugin dies during DestroyTask.
  RelaunchIfDead(host_.Destroy(kId));
  EXPECT_EQ(plugin_died_, InPlugin());
  EXPECT_THAT(host_.Leftovers(), IsEmpty());
  EXPECT_OK(host_.Quit());
  EXPECT_THAT(host_.Leftovers(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(EveryStep, Fault, ::testing::ValuesIn(kFaultPoints),
                         [](const auto& point) {
                           return absl::StrReplaceAll(point.param, {{".", "_"}});
                         });

}  // namespace
}  // namespace jenkins_agent
