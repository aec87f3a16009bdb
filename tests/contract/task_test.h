// What the tests of a task's RPCs share: a plugin that is ready, and at the end nothing left.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/contract/task_host.h"
#include "tests/support/grpc_matchers.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {

class TaskTest : public ::testing::Test {
 protected:
  static constexpr char kId[] = "alloc/agent/1";
  static constexpr char kOther[] = "alloc/other/2";

  void SetUp() override {
    REQUIRES_ROOT();
    ASSERT_OK(host_.Launch());
  }
  void TearDown() override {
    if (IsSkipped() || HasFatalFailure()) return;
    for (const char* id : {kId, kOther}) EXPECT_THAT(host_.Destroy(id), Succeeded());
    EXPECT_OK(host_.Quit());
    EXPECT_EQ(host_.Leftovers(), "");
  }

  grpc::Status TryStart(const nomad::TaskConfig& config) { return host_.Start(config, &handle_); }
  void Start(const nomad::TaskConfig& config) { ASSERT_THAT(TryStart(config), Succeeded()); }
  void Start(const std::string& script) { Start(host_.Config(kId, script)); }
  void Relaunch() {
    ASSERT_OK(host_.Crash());
    ASSERT_OK(host_.Launch());
  }
  nomad::WaitTaskResponse Wait(const std::string& id = kId) {
    nomad::WaitTaskResponse response;
    EXPECT_THAT(host_.Wait(id, &response), Succeeded());
    return response;
  }
  nomad::InspectTaskResponse Inspect() {
    nomad::InspectTaskResponse response;
    EXPECT_THAT(host_.Inspect(kId, &response), Succeeded());
    return response;
  }
  std::string Pid() { return Inspect().driver().attributes().at("pid"); }

  TaskHost host_{DRIVER_FILE};
  nomad::TaskHandle handle_;  // of the last start
};

}  // namespace jenkins_agent
