// A pull that takes long, by the real worker at a registry that does not answer.
#include <fcntl.h>

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/task/task_images.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/tools/fake_controller.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

class ImagePullsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    ASSERT_OK_AND_ASSIGN(tools_.executable, OpenFile(TOOLS_PROGRAM, O_RDONLY));
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    thread_ = std::thread([this] { loop_->Run(); });
  }
  void TearDown() override {
    if (loop_ == nullptr) return;
    loop_->Quit();
    thread_.join();
    images_.reset();  // its workers are the loop's
  }

  TempDir dir_;
  JarWorkerProgram tools_;
  Metrics metrics_;
  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
  std::unique_ptr<TaskImages> images_;
};

TEST_F(ImagePullsTest, WhoWaitsIsToldInEachInterval) {
  std::promise<void> given_up;
  FakeController registry([&](const std::string&, const FakeController::Send&) {
    given_up.get_future().wait();  // it never answers
  });
  const std::string host = absl::StrCat("127.0.0.1:", registry.port());
  ImagesBlock config;
  config.registries.push_back({.host = host, .plain_http = true});
  images_ = std::make_unique<TaskImages>(
      TaskImages::Options{.config = config,
                          .dir = dir_.path() + "/images",
                          .loop = loop_.get(),
                          .cleaner = loop_.get(),
                          .tools = &tools_,
                          .metrics = &metrics_,
                          .progress_interval = std::chrono::milliseconds(10)});
  const ImageBlock block = {.image = host + "/ci/slow:1", .pull_timeout = "60s"};
  std::vector<std::string> told;
  const auto tell = [&](const std::string& text) {
    told.push_back(text);
    if (told.size() == 3) images_->GiveUp("slow");
  };
  const absl::Status ended =
      images_->Take({.task_id = "slow", .task_dir = dir_.path(), .image = block, .tell = tell})
          .status();
  given_up.set_value();
  EXPECT_EQ(told, std::vector<std::string>(
                      3, "pulling image " + host + "/ci/slow:1: nothing has come yet"));
  EXPECT_THAT(std::string(ended.message()), HasSubstr("stopped while its image was being pulled"));
}

}  // namespace
}  // namespace jenkins_agent
