// The controller check as the plugin runs it: its own process, as root, with stdin kept open.
#include "driver/tools/controller_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <future>
#include <nlohmann/json.hpp>
#include <string>

#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/subprocess.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/tools/fake_controller.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

class ControllerCheckTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    ASSERT_OK_AND_ASSIGN(in_, MakePipe());
  }
  void StartCheck(const std::string& url) {
    ASSERT_OK_AND_ASSIGN(process_, Start({TOOLS_PROGRAM, "controller-check"},
                                         {.stdin_fd = in_.read.get(), .pipe_stdout = true}));
    const Json request = {{"urls", {url}}, {"name", "linux-1"}, {"cache_dir", "/unused"}};
    ASSERT_OK(WriteAll(in_.write.get(), request.dump() + "\n"));
  }
  // Its answer; it ends with it.
  Json Answer() {
    const absl::StatusOr<std::string> text = ReadAll(process_.output.get(), 1 << 16);
    EXPECT_OK(text);
    EXPECT_OK(Wait(process_));
    return Json::parse(text.value_or(""), nullptr, false);
  }

  Pipe in_;
  Subprocess process_;
};

TEST_F(ControllerCheckTest, AReadyControllerIsSaidToBe) {
  FakeController controller([](const std::string&, const FakeController::Send& send) {
    send(FakeController::Answer("200 OK", "X-Hudson-JNLP-Port: 50000\r\n", ""));
  });
  StartCheck(controller.url());
  EXPECT_EQ(Answer(), (Json{{"state", "ready"}}));
}

TEST_F(ControllerCheckTest, OneThatStartsIsNotReadyAndIsAskedOnce) {
  FakeController controller([](const std::string&, const FakeController::Send& send) {
    send(FakeController::Answer("503 Service Unavailable", "", ""));
  });
  StartCheck(controller.url());
  const Json answer = Answer();
  EXPECT_EQ(answer["state"], "failed");
  EXPECT_THAT(std::string(answer["error"]), HasSubstr("503"));
  EXPECT_EQ(controller.requests().size(), 1u);
}

TEST_F(ControllerCheckTest, OneThatIsNotThereIsNotReady) {
  StartCheck("http://127.0.0.1:1/");
  EXPECT_EQ(Answer()["state"], "failed");
}

TEST_F(ControllerCheckTest, WhoeverAskedMayGo) {
  std::promise<void> asked, done;
  FakeController controller([&](const std::string&, const FakeController::Send&) {
    asked.set_value();
    done.get_future().wait();
  });
  StartCheck(controller.url());
  asked.get_future().wait();
  in_.write.Reset();
  EXPECT_EQ(Answer()["state"], "failed");
  done.set_value();
}

}  // namespace
}  // namespace jenkins_agent
