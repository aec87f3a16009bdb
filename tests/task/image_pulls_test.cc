// A pull that takes long, by the real worker at a registry that does not answer.
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/image/digest.h"
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
  // Of a registry without TLS, for the task `slow`.
  absl::Status Pull(const std::string& host, const std::string& image,
                    const std::function<void(const std::string&)>& tell) {
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
    const ImageBlock block = {.image = image, .pull_timeout = "60s"};
    return images_->Take({.task_id = "slow", .task_dir = dir_.path(), .image = block, .tell = tell})
        .status();
  }
  void TearDown() override {
    if (loop_ == nullptr) return;
    loop_->Quit();
    thread_.join();
    images_.reset();
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
  std::vector<std::string> told;
  const auto tell = [&](const std::string& text) {
    told.push_back(text);
    if (told.size() == 3) images_->GiveUp("slow");
  };
  const absl::Status ended = Pull(host, host + "/ci/slow:1", tell);
  given_up.set_value();
  EXPECT_EQ(told, std::vector<std::string>(
                      3, "pulling image " + host +
                             "/ci/slow:1: its manifest and config are not here yet"));
  EXPECT_THAT(std::string(ended.message()), HasSubstr("stopped while its image was being pulled"));
}

TEST_F(ImagePullsTest, ARegistryThatStallsAtItsFirstLayerIsTold) {
  const std::string layer = absl::StrCat("sha256:", std::string(64, 'a'));
  const std::string config =
      R"({"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[")" + layer +
      R"("]}})";
  const auto descriptor = [](const char* type, const std::string& digest, size_t size) {
    return absl::StrCat(R"({"mediaType":"application/vnd.oci.image.)", type, R"(","digest":")",
                        digest, R"(","size":)", size, "}");
  };
  const std::string manifest = absl::StrCat(
      R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":)",
      descriptor("config.v1+json", Digest::Of(config).ToString(), config.size()), R"(,"layers":[)",
      descriptor("layer.v1.tar+gzip", layer, 3 << 20), "]}");
  std::promise<void> given_up;
  FakeController registry([&](const std::string& path, const FakeController::Send& send) {
    if (absl::StrContains(path, "/manifests/")) {
      send(FakeController::Answer(
          "200 OK", "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n", manifest));
    } else if (absl::StrContains(path, Digest::Of(config).ToString())) {
      send(FakeController::Answer("200 OK", "", config));
    } else {
      given_up.get_future().wait();  // the layer never comes
    }
  });
  const std::string host = absl::StrCat("127.0.0.1:", registry.port());
  std::string last;
  const absl::Status ended = Pull(host, host + "/ci/slow:1", [&](const std::string& text) {
    last = text;
    if (!absl::EndsWith(text, "not here yet")) images_->GiveUp("slow");
  });
  given_up.set_value();
  EXPECT_EQ(last, "pulling image " + host + "/ci/slow:1: 0 of 3 MB, 0 of 1 layers");
  EXPECT_THAT(std::string(ended.message()), HasSubstr("stopped while its image was being pulled"));
}

ImageJob JobAt(const std::string& host, const std::string& store) {
  ImageJob job;
  job.store = store;
  job.image = host + "/ci/slow:1";
  job.plain_http = true;
  return job;
}

void Unwanted(const absl::StatusOr<PullResult>&) { ADD_FAILURE() << "nobody is there any more"; }

bool IsWorker(const std::string& process) {
  const auto command = ReadFile(process + "/cmdline");  // empty: it has ended
  return command.ok() && absl::StrContains(*command, "image-pull");
}

// Children of this process: /proc/PID. Whoever a worker leaves behind may become one, too.
std::vector<std::string> Workers() {
  std::vector<std::string> workers;
  const std::string parent = absl::StrCat("\nPPid:\t", ::getpid(), "\n");
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string process = entry.path().string();
    const auto status = ReadFile(process + "/status");
    if (!status.ok() || !absl::StrContains(*status, parent)) continue;
    if (IsWorker(process)) workers.push_back(process);
  }
  return workers;
}

TEST_F(ImagePullsTest, APullWhoseTurnComesWhenTheOwnerIsGoneIsNotStarted) {
  auto pulls = std::make_shared<ImagePulls>(loop_.get(), &tools_, &metrics_);
  std::promise<void> owner_gone;
  std::promise<void> over;
  loop_->Post([&] { owner_gone.get_future().wait(); });
  pulls->PullInBackground(JobAt("127.0.0.1:1", dir_.path() + "/images"), &Unwanted);
  pulls.reset();
  owner_gone.set_value();
  loop_->Post([&] { over.set_value(); });
  over.get_future().wait();
}

TEST_F(ImagePullsTest, APullThatRunsWhenItsOwnerGoesIsEnded) {
  std::promise<void> asked;
  std::promise<void> over;
  FakeController registry([&](const std::string&, const FakeController::Send&) {
    asked.set_value();
    over.get_future().wait();  // it never answers
  });
  auto pulls = std::make_shared<ImagePulls>(loop_.get(), &tools_, &metrics_);
  pulls->PullInBackground(
      JobAt(absl::StrCat("127.0.0.1:", registry.port()), dir_.path() + "/images"), &Unwanted);
  asked.get_future().wait();
  const std::vector<std::string> workers = Workers();
  EXPECT_THAT(workers, testing::Not(testing::IsEmpty()));
  pulls.reset();
  std::promise<void> ended;
  loop_->Post([&] { ended.set_value(); });
  ended.get_future().wait();
  for (const std::string& worker : workers) EXPECT_FALSE(IsWorker(worker)) << worker;
  over.set_value();
}

}  // namespace
}  // namespace jenkins_agent
