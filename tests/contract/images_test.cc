// Tasks on images of a registry, pulled by the plugin: who asks whom, who waits, who gets what.
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/base/subprocess.h"
#include "driver/image/store.h"
#include "tests/contract/task_test.h"
#include "tests/support/scrape.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

namespace fs = std::filesystem;

constexpr char kPassword[] = "not-to-be-found-anywhere";

// image_registry.py.
class Registry {
 public:
  absl::Status Begin() {
    ASSIGN_OR_RETURN(Pipe input, MakePipe());
    StartOptions options;
    options.env = {absl::StrCat("PATH=", ::getenv("PATH")), "HOME=/nonexistent"};
    options.stdin_fd = input.read.get();
    options.pipe_stdout = true;
    options.stderr_fd = STDERR_FILENO;
    ASSIGN_OR_RETURN(process_,
                     Start({"/usr/bin/python3", "-B", IMAGE_REGISTRY, folder_.path(),
                            absl::StrCat("ci:", kPassword), absl::StrCat("deputy:", kPassword)},
                           options));
    input_ = std::move(input.write);
    const std::vector<std::string> hosts = absl::StrSplit(ReadLine(), ' ');
    if (hosts.size() != 2) return absl::InternalError("no registry: is docker-registry there?");
    host = hosts[0];
    silent_host = hosts[1];
    Forget();
    return absl::OkStatus();
  }
  ~Registry() {
    input_.Reset();
    if (process_.pid > 0) Wait(process_).IgnoreError();
  }
  void Stop() {
    EXPECT_OK(WriteAll(input_.get(), "stop\n"));
    EXPECT_EQ(ReadLine(), "stopped");
  }
  // What was asked for until now.
  void Forget() { forgotten_ = Log().size(); }
  // Paths that were asked for since then, refused requests left out.
  std::vector<std::string> Answered(absl::string_view kind) const {
    std::vector<std::string> paths;
    const std::string log = Log().substr(forgotten_);
    for (const absl::string_view line : absl::StrSplit(log, '\n')) {
      const std::vector<absl::string_view> parts = absl::StrSplit(line, '"');
      if (parts.size() < 3 || !absl::StartsWith(parts[1], "GET /v2/")) continue;
      if (absl::StartsWith(parts[2], " 401") || !absl::StrContains(parts[1], kind)) continue;
      paths.emplace_back(parts[1]);
    }
    return paths;
  }

  std::string host;
  std::string silent_host;

 private:
  std::string Log() const {
    std::ifstream file(folder_.path() + "/registry.log");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string ReadLine() {
    std::string line;
    for (char c; ::read(process_.output.get(), &c, 1) == 1 && c != '\n';) line += c;
    return line;
  }

  const TempDir folder_;
  Subprocess process_;
  Fd input_;
  size_t forgotten_ = 0;
};

class Images : public TaskTest {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    for (const char* program : {"/usr/bin/skopeo", "/bin/busybox"}) {
      if (!fs::exists(program)) GTEST_SKIP() << "needs " << program;
    }
    if (!fs::exists("/usr/bin/docker-registry") && !fs::exists(UNPACKED_REGISTRY)) {
      GTEST_SKIP() << "needs docker-registry (scripts/setup)";
    }
    if (shared_ == nullptr) {
      shared_ = std::make_shared<Registry>();
      ASSERT_OK(shared_->Begin());
    }
    registry_ = shared_;
    registry_->Forget();
    ASSERT_OK(LaunchPlugin());
  }
  static void TearDownTestSuite() { shared_ = nullptr; }
  // It ends with the test: others get a new one.
  void StopRegistry() {
    shared_ = nullptr;
    registry_->Stop();
  }
  absl::Status LaunchPlugin(int metrics_port = 0) {
    const json registry = json::array({{{"host", registry_->host}, {"plain_http", true}},
                                       {{"host", registry_->silent_host}, {"plain_http", true}}});
    return host_.Launch({.metrics_listen = metrics_port > 0 ? absl::StrCat(metrics_port) : "",
                         .config = {{"images", {{"registry", registry}}}}});
  }
  json Options(const std::string& image) const {
    return {{"image", registry_->host + "/" + image},
            {"auth", {{"username", "ci"}, {"password", kPassword}}}};
  }
  nomad::TaskConfig Task(const json& options, const std::string& id = kId) const {
    nomad::TaskConfig config = host_.Config(id, "");
    const std::vector<uint8_t> bytes = json::to_msgpack(options);
    config.set_msgpack_driver_config({bytes.begin(), bytes.end()});
    return config;
  }
  nomad::TaskConfig Shell(json options, const std::string& script,
                          const std::string& id = kId) const {
    options["command"] = "/bin/sh";
    options["args"] = {"-c", script};
    return Task(options, id);
  }
  std::string Refusal(const nomad::TaskConfig& config) {
    nomad::TaskHandle handle;
    const grpc::Status status = host_.Start(config, &handle);
    EXPECT_FALSE(status.ok());
    recoverable_ = status.error_details().find("RecoverableError") != std::string::npos;
    return status.error_message();
  }
  int Leases() const {
    const std::string folder = host_.StateDir() + "/images/leases";
    std::error_code none;
    return static_cast<int>(std::distance(fs::directory_iterator(folder, none), {}));
  }
  // Once kept, by whoever may have it.
  void Keep(const std::string& image) {
    Start(Shell(Options(image), "true"));
    EXPECT_EQ(Wait().result().exit_code(), 0);
    ASSERT_THAT(host_.Destroy(kId), Succeeded());
  }

  static std::shared_ptr<Registry> shared_;  // pushing takes seconds
  std::shared_ptr<Registry> registry_;
  bool recoverable_ = false;
};

std::shared_ptr<Registry> Images::shared_;

TEST_F(Images, TheProgramUserAndDirectoryAreTheImages) {
  Start(
      Shell(Options("ci/one:1"), "id -un > /local/who; pwd >> /local/who; cat /one >> /local/who"));
  EXPECT_EQ(Wait().result().exit_code(), 0);
  EXPECT_EQ(ReadFile(host_.Local("who")).value_or("none"), "ci\n/tmp\n1");
  ASSERT_THAT(host_.Destroy(kId), Succeeded());
  Start(Task(Options("ci/one:1")));  // its own command
  EXPECT_EQ(Wait().result().exit_code(), 0);
}

TEST_F(Images, ASecondStartAsksNobody) {
  Keep("ci/one:1");
  const size_t asked = registry_->Answered("").size();
  EXPECT_GT(asked, 0u);
  StopRegistry();
  Start(Shell(Options("ci/one:1"), "true"));
  EXPECT_EQ(Wait().result().exit_code(), 0);
  EXPECT_EQ(registry_->Answered("").size(), asked);
}

TEST_F(Images, TwentyStartsFetchEachBlobOnce) {
  std::vector<std::thread> starts;
  for (int i = 0; i < 20; ++i) {
    starts.emplace_back([this, i] {
      nomad::TaskHandle handle;
      EXPECT_THAT(
          host_.Start(Shell(Options("ci/one:1"), "sleep 1000", absl::StrCat("many/", i)), &handle),
          Succeeded());
    });
  }
  for (std::thread& start : starts) start.join();
  EXPECT_EQ(Leases(), 20);
  std::vector<std::string> blobs = registry_->Answered("/blobs/");
  EXPECT_EQ(blobs.size(), 3u);  // config and two layers
  std::sort(blobs.begin(), blobs.end());
  EXPECT_EQ(std::unique(blobs.begin(), blobs.end()), blobs.end());
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(host_.Destroy(absl::StrCat("many/", i)), Succeeded());
  }
  EXPECT_EQ(Leases(), 0);
}

TEST_F(Images, TwoLoginsFetchEachBlobOnceAndBothAreAsked) {
  json deputy = Options("ci/one:1");
  deputy["auth"]["username"] = "deputy";
  std::vector<std::thread> starts;
  for (int i = 0; i < 6; ++i) {
    starts.emplace_back([this, i, &deputy] {
      nomad::TaskHandle handle;
      const json options = i % 2 == 0 ? Options("ci/one:1") : deputy;
      EXPECT_THAT(host_.Start(Shell(options, "sleep 1000", absl::StrCat("many/", i)), &handle),
                  Succeeded());
    });
  }
  for (std::thread& start : starts) start.join();
  EXPECT_EQ(registry_->Answered("/blobs/").size(), 3u);  // config and two layers
  EXPECT_EQ(registry_->Answered("/manifests/").size(), 2u);
  for (int i = 0; i < 6; ++i) EXPECT_THAT(host_.Destroy(absl::StrCat("many/", i)), Succeeded());
}

TEST_F(Images, WhatIsPulledAndKeptIsCounted) {
  ASSERT_OK(host_.Quit());
  const int port = FreePort();
  ASSERT_OK(LaunchPlugin(port));
  const auto served = [port](const std::string& line) {
    return WaitFor([&] { return absl::StrContains(Scrape(port), absl::StrCat("\n", line, "\n")); });
  };
  EXPECT_TRUE(served("jenkins_agent_image_pulls_total{result=\"pulled\"} 0"));
  Keep("ci/one:1");
  EXPECT_TRUE(served("jenkins_agent_image_pulls_total{result=\"pulled\"} 1"));
  EXPECT_TRUE(served("jenkins_agent_image_pull_seconds_count 1"));
  EXPECT_TRUE(served("jenkins_agent_images 1"));
  EXPECT_THAT(Scrape(port), AllOf(Not(HasSubstr("jenkins_agent_image_store_bytes 0\n")),
                                  Not(HasSubstr("jenkins_agent_image_pulled_bytes_total 0\n"))));
  json always = Options("ci/one:1");
  always["image_pull_policy"] = "always";
  Start(Shell(always, "true"));
  EXPECT_TRUE(served("jenkins_agent_image_pulls_total{result=\"unchanged\"} 1"));
  always["auth"]["password"] = "wrong";
  EXPECT_NE(Refusal(Shell(always, "true", kOther)), "");
  EXPECT_TRUE(served("jenkins_agent_image_pulls_total{result=\"failed\"} 1"));
}

TEST_F(Images, OfASharedLayerOnlyTheRestIsFetched) {
  Keep("ci/one:1");
  const size_t blobs = registry_->Answered("/blobs/").size();
  Keep("ci/two:1");
  EXPECT_EQ(registry_->Answered("/blobs/").size() - blobs, 2u);  // config and its own layer
}

TEST_F(Images, AWrongLoginFailsAlone) {
  json wrong = Options("ci/one:1");
  wrong["auth"]["password"] = "wrong";
  wrong["image_pull_policy"] = "always";
  json right = Options("ci/one:1");
  right["image_pull_policy"] = "always";
  std::string refusal;
  std::thread other([&] { refusal = Refusal(Shell(wrong, "true", kOther)); });
  Start(Shell(right, "sleep 1000"));
  other.join();
  EXPECT_THAT(refusal, AllOf(HasSubstr(registry_->host + "/ci/one:1"), HasSubstr("UNAUTHORIZED")));
  EXPECT_FALSE(recoverable_);
  // Nor does it get the kept one.
  EXPECT_THAT(Refusal(Shell(wrong, "true", kOther)), HasSubstr("UNAUTHORIZED"));
  EXPECT_FALSE(recoverable_);
  EXPECT_EQ(host_.TasksOnDisk(), 1);
  EXPECT_EQ(Leases(), 1);
}

TEST_F(Images, AlwaysAsksAndFetchesNothingThatIsHere) {
  Keep("ci/one:1");
  const size_t manifests = registry_->Answered("/manifests/").size();
  const size_t layers = registry_->Answered("/blobs/").size();
  json always = Options("ci/one:1");
  always["image_pull_policy"] = "always";
  Start(Shell(always, "true"));
  EXPECT_GT(registry_->Answered("/manifests/").size(), manifests);
  EXPECT_EQ(registry_->Answered("/blobs/").size(), layers);
}

TEST_F(Images, WithoutTheRegistryAKeptOneIsUsedAndAnotherIsTriedAgain) {
  Keep("ci/one:1");
  StopRegistry();
  json always = Options("ci/one:1");
  always["image_pull_policy"] = "always";
  Start(Shell(always, "true"));
  EXPECT_EQ(Wait().result().exit_code(), 0);
  EXPECT_THAT(Refusal(Shell(Options("ci/two:1"), "true", kOther)),
              AllOf(HasSubstr("image "), HasSubstr(registry_->host)));
  EXPECT_TRUE(recoverable_);
}

TEST_F(Images, APinnedDigestIsThatImageAndIsKeptUnderItsOwnName) {
  Keep("ci/one:1");
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Store> store,
                       Store::Open(host_.StateDir() + "/images"));
  const std::string digest = store->Images().at(0).manifest.ToString();
  Keep("ci/one@" + digest);
  EXPECT_EQ(store->Images().size(), 1u);
  StopRegistry();
  Start(Shell(Options("ci/one@" + digest), "test $(cat /one) = 1"));
  EXPECT_EQ(Wait().result().exit_code(), 0);
}

TEST_F(Images, NeverPullsNothing) {
  json never = Options("ci/one:1");
  never["image_pull_policy"] = "never";
  EXPECT_THAT(Refusal(Shell(never, "true")),
              AllOf(HasSubstr(registry_->host + "/ci/one:1"), HasSubstr("image_pull_policy")));
  EXPECT_FALSE(recoverable_);
  EXPECT_TRUE(registry_->Answered("").empty());
  Keep("ci/one:1");
  Start(Shell(never, "true"));
}

TEST_F(Images, WhatIsWrongWithAnImageIsSaid) {
  const auto refusal = [this](const std::string& image) { return Refusal(Task(Options(image))); };
  EXPECT_THAT(refusal("ci/none:1"), AllOf(HasSubstr("/ci/none:1"), HasSubstr("unknown")));
  EXPECT_FALSE(recoverable_);
  EXPECT_THAT(refusal("ci/one:9"), AllOf(HasSubstr("/ci/one:9"), HasSubstr("unknown")));
  EXPECT_FALSE(recoverable_);
  EXPECT_THAT(refusal("ci/One:1"), HasSubstr("config: image"));
  EXPECT_THAT(refusal("ci/one@sha256:12"), HasSubstr("config: image"));
  EXPECT_THAT(refusal("ci/ghost:1"), HasSubstr("'ghost'"));
  EXPECT_THAT(refusal("ci/root:1"), AllOf(HasSubstr("of the image"), HasSubstr("allow_root")));
  EXPECT_THAT(refusal("ci/empty:1"), HasSubstr("/ci/empty:1 names none"));
  EXPECT_THAT(refusal("ci/entry:1"), HasSubstr("/missing: No such file or directory"));
  EXPECT_THAT(refusal("ci/environment:1"), HasSubstr("LARGE"));
  EXPECT_THAT(refusal("ci/place:1"), HasSubstr("work_dir /not/there: No such file"));
  EXPECT_THAT(refusal("ci/nokey:1"), HasSubstr("'Env' holds 'no-equals', which is not KEY=VALUE"));
  EXPECT_EQ(host_.TasksOnDisk(), 0);
  EXPECT_EQ(Leases(), 0);
}

TEST_F(Images, AnOddImageRunsAllTheSame) {
  json options = Options("ci/odd:1");
  options["mount"] = {{{"type", "tmpfs"}, {"target", "/opt"}}};
  nomad::TaskConfig config = Shell(
      options,
      "id -u > /local/seen; id -g >> /local/seen; pwd >> /local/seen; echo $A >> /local/seen; "
      "test -d /tmp && test -d /local && test ! -e /opt/tool && test ! -L /etc/hosts && "
      "cat /etc/hosts /etc/resolv.conf > /dev/null && touch /volume/deep/written");
  fs::create_directories(host_.dir() + "/volume");
  ASSERT_EQ(::chmod((host_.dir() + "/volume").c_str(), 0777), 0);
  nomad::Mount& volume = *config.add_mounts();
  volume.set_host_path(host_.dir() + "/volume");
  volume.set_task_path("/volume/deep");
  Start(config);
  EXPECT_EQ(Wait().result().exit_code(), 0);
  EXPECT_EQ(ReadFile(host_.Local("seen")).value_or("none"), "1234\n4711\n/tmp\nb=c\n");
  EXPECT_TRUE(fs::exists(host_.dir() + "/volume/written"));
}

TEST_F(Images, AJobHasNoFilesOfTheNodeRead) {
  EXPECT_THAT(Refusal(Shell({{"image", "rootfs:/etc"}}, "true")), HasSubstr("images.pre_pull"));
  EXPECT_THAT(Refusal(Shell({{"image", "oci:/var/lib/x"}}, "true")), HasSubstr("images.pre_pull"));
}

TEST_F(Images, APullThatTakesTooLongIsGivenUp) {
  json slow = Options("ci/one:1");
  slow["image"] = registry_->silent_host + "/ci/one:1";
  slow["image_pull_timeout"] = "1s";
  EXPECT_THAT(Refusal(Shell(slow, "true")),
              AllOf(HasSubstr(registry_->silent_host), HasSubstr("image_pull_timeout = \"1s\"")));
  EXPECT_TRUE(recoverable_);
  EXPECT_TRUE(WaitFor([&] { return host_.Leftovers().empty(); })) << host_.Leftovers();
}

TEST_F(Images, ATaskThatIsDestroyedNoLongerWaitsForItsImage) {
  json slow = Options("ci/one:1");
  slow["image"] = registry_->silent_host + "/ci/one:1";
  std::string refusal;
  std::atomic<bool> refused = false;
  std::thread start([&] {
    refusal = Refusal(Shell(slow, "true"));
    refused = true;
  });
  // Its directory is made right before it waits.
  EXPECT_TRUE(WaitFor([&] { return fs::exists(host_.TaskDir(kId)); }));
  EXPECT_TRUE(WaitFor([&] {
    // A start that was refused has taken its directory along.
    const grpc::Status destroyed = host_.Destroy(kId);
    EXPECT_TRUE(destroyed.ok() || destroyed.error_code() == grpc::StatusCode::NOT_FOUND);
    return refused.load();
  }));
  start.join();
  EXPECT_THAT(refusal, HasSubstr("stopped while its image was being pulled"));
}

TEST_F(Images, TheLoginIsKeptNowhere) {
  Start(Shell(Options("ci/one:1"), "env > /local/env; sleep 1000"));
  EXPECT_THAT(handle_.SerializeAsString(), Not(HasSubstr(kPassword)));
  for (const auto& entry : fs::recursive_directory_iterator(host_.dir())) {
    if (!entry.is_regular_file()) continue;
    std::ifstream file(entry.path());
    const std::string text(std::istreambuf_iterator<char>(file), {});
    EXPECT_THAT(text, Not(HasSubstr(kPassword))) << entry.path();
  }
  EXPECT_THAT(host_.plugin().stderr_text(), Not(HasSubstr(kPassword)));
}

TEST_F(Images, ALeaseOutlivesThePluginAndEndsWithItsTask) {
  Start(Shell(Options("ci/one:1"), "sleep 1000"));
  const std::string pid = Pid();
  ASSERT_OK(host_.Crash());
  EXPECT_EQ(Leases(), 1);
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Store> store,
                       Store::Open(host_.StateDir() + "/images"));
  const std::vector<StoredImage> images = store->Images();
  ASSERT_EQ(images.size(), 1u);
  EXPECT_THAT(store->Remove(images[0].manifest).status().message(), HasSubstr(kId));
  ASSERT_OK(LaunchPlugin());
  ASSERT_THAT(host_.Recover(handle_), Succeeded());
  EXPECT_EQ(Pid(), pid);
  EXPECT_EQ(Leases(), 1);
  ASSERT_THAT(host_.Destroy(kId), Succeeded());
  EXPECT_EQ(Leases(), 0);
  EXPECT_TRUE(store->FindImage(images[0].manifest).has_value());
}

TEST_F(Images, ALeaseWithoutATaskIsDropped) {
  Keep("ci/one:1");
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Store> store,
                       Store::Open(host_.StateDir() + "/images"));
  ASSERT_OK(store->TakeLease({.task = "gone",
                              .manifest = store->Images().at(0).manifest,
                              .task_dir = host_.StateDir() + "/tasks/gone"}));
  // Somebody else's, whose directory is there.
  ASSERT_OK(store->TakeLease(
      {.task = "other", .manifest = store->Images().at(0).manifest, .task_dir = host_.StateDir()}));
  ASSERT_OK(host_.Crash());
  ASSERT_OK(LaunchPlugin());
  EXPECT_TRUE(WaitFor([&] { return Leases() == 1; }));
  EXPECT_OK(store->DropLease("other"));
}

}  // namespace
}  // namespace jenkins_agent
