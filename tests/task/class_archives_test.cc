// Class-data archives, with a script in the place of `java` and the real supervisor around it.
#include "driver/task/class_archives.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "driver/base/digest.h"
#include "driver/base/file.h"
#include "driver/base/process.h"
#include "driver/sandbox/seccomp.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;
using ::testing::EndsWith;

class ClassArchivesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    ASSERT_EQ(::chmod(dir_.path().c_str(), 0711), 0);
    ASSERT_OK(MakeDirs(Jdk() + "/bin"));
    ASSERT_OK(WriteFileAtomic(Jdk() + "/release", "JAVA_VERSION=\"17.0.15\"\n"));
    ASSERT_OK(WriteFileAtomic(dir_.path() + "/some.jar", "a jar", 0444));
    ASSERT_OK(MakeDirs(paths_.Tasks(), 0700));
    java_.set_path(Jdk());
    java_.set_feature(17);
    jar_.set_path("/run/jenkins-agent/jar/agent.jar");
    jar_.set_generation(pb::LAUNCHER_JENKINS);
    jar_.set_sha256(Sha256Hex("a jar"));
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    thread_ = std::thread([this] { loop_->Run(); });
    ASSERT_OK_AND_ASSIGN(Fd program, OpenFile(SUPERVISOR_PROGRAM, O_RDONLY));
    ASSERT_OK_AND_ASSIGN(spawner_, Spawner::Start(std::move(program)));
    Open();
  }
  void TearDown() override {
    if (loop_ == nullptr) return;
    loop_->Quit();
    thread_.join();
  }

  std::string Jdk() const { return dir_.path() + "/jdk"; }
  // What `java @file` does, in /local.
  void SetJava(const std::string& script) {
    ASSERT_OK(WriteFileAtomic(Jdk() + "/bin/java", "#!/bin/sh\n" + script + "\n", 0755));
    ASSERT_EQ(::chmod((Jdk() + "/bin/java").c_str(), 0755), 0);
  }
  void Open() {
    archives_ = ClassArchives::Open({.loop = loop_.get(),
                                     .cleaner = loop_.get(),
                                     .spawner = spawner_.get(),
                                     .paths = paths_,
                                     .boot_id = *BootId(),
                                     .payload_filter = PayloadFilter(),
                                     .init_filter = InitFilter()});
    LoopIsIdle();
  }
  void LoopIsIdle() {
    std::atomic<bool> done = false;
    loop_->Post([&] { done = true; });
    ASSERT_TRUE(WaitFor([&] { return done.load(); }));
  }
  std::string Find() { return archives_->Find(Jdk(), jar_.sha256()); }
  // Returns when the sandbox is gone again.
  void Make() {
    archives_->Make(java_, jar_, dir_.path() + "/some.jar");
    LoopIsIdle();
    ASSERT_TRUE(WaitFor([&] { return fs::is_empty(paths_.Tasks()); }));
    LoopIsIdle();
  }

  const TempDir dir_;
  const StatePaths paths_{dir_.path() + "/state"};
  pb::JavaHome java_;
  pb::JarInfo jar_;
  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
  std::unique_ptr<Spawner> spawner_;
  std::shared_ptr<ClassArchives> archives_;
};

// What a JDK does with -XX:ArchiveClassesAtExit.
constexpr char kDump[] = "cat /run/jenkins-agent/args >/local/agent.jsa";

TEST_F(ClassArchivesTest, AreMadeOutOfReachAndKeptForRoot) {
  SetJava(absl::StrCat(kDump,
                       "; { id -u; ls /sys/class/net; "
                       "cat /run/jenkins-agent/jar/agent.jar; } >>/local/agent.jsa"));
  EXPECT_EQ(Find(), "");
  Make();
  const std::string path = Find();
  ASSERT_OK_AND_ASSIGN(const std::string content, ReadFile(path));
  EXPECT_THAT(content, ::testing::HasSubstr("-XX:ArchiveClassesAtExit=/local/agent.jsa"));
  EXPECT_THAT(content, EndsWith("65534\nlo\na jar"));
  struct stat status = {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 0u);
  EXPECT_EQ(status.st_mode & 07777, 0444u);
}

TEST_F(ClassArchivesTest, AChangedJdkHasNone) {
  SetJava(kDump);
  Make();
  ASSERT_NE(Find(), "");
  ASSERT_OK(WriteFileAtomic(Jdk() + "/release", "JAVA_VERSION=\"17.0.16\"\n"));
  EXPECT_EQ(Find(), "");
}

TEST_F(ClassArchivesTest, ANewPluginTakesWhatIsSoundAndOfThisBoot) {
  SetJava(kDump);
  Make();
  const std::string path = Find();
  const std::string earlier = paths_.ClassArchives("an-earlier-boot");
  ASSERT_OK(MakeDirs(earlier));
  fs::copy_file(path, earlier + "/" + fs::path(path).filename().string());
  Open();
  EXPECT_EQ(Find(), path);
  EXPECT_FALSE(fs::exists(earlier));

  ASSERT_EQ(::chmod(path.c_str(), 0644), 0);
  fs::resize_file(path, 10);
  Open();
  EXPECT_EQ(Find(), "");
  EXPECT_FALSE(fs::exists(path));
  Make();
  EXPECT_EQ(Find(), path) << "made anew";
}

TEST_F(ClassArchivesTest, WhatIsNoPlainFileIsNotTaken) {
  for (const char* script :
       {"ln -s /etc/shadow /local/agent.jsa", "mkdir /local/agent.jsa", "mkfifo /local/agent.jsa",
        "truncate -s 1G /local/agent.jsa", "exit 1"}) {
    SetJava(script);
    ASSERT_OK(WriteFileAtomic(Jdk() + "/release", absl::StrCat("JAVA_VERSION=\"17\"\n", script)));
    Make();
    EXPECT_EQ(Find(), "") << script;
  }
}

TEST_F(ClassArchivesTest, WhatCannotBeMadeIsNotTriedAgain) {
  SetJava("exit 1");
  Make();
  archives_->Make(java_, jar_, dir_.path() + "/some.jar");
  LoopIsIdle();
  EXPECT_TRUE(fs::is_empty(paths_.Tasks())) << "a second try has a directory by now";
}

// A java that never ends; and a plugin that does not come back to see to it.
TEST_F(ClassArchivesTest, ASandboxEndsWithThePluginThatStartedIt) {
  SetJava("touch /local/up; exec sleep 1000");
  archives_->Make(java_, jar_, dir_.path() + "/some.jar");
  const std::string task_dir = paths_.Task("class-data archive");
  ASSERT_TRUE(WaitFor([&] { return fs::exists(task_dir + "/out/up"); }));
  ASSERT_TRUE(fs::exists(task_dir + "/control.sock"));
  archives_.reset();
  EXPECT_TRUE(WaitFor([&] { return !fs::exists(task_dir + "/control.sock"); }));
}

TEST_F(ClassArchivesTest, TheLongestUnusedGo) {
  SetJava(kDump);
  std::string first;
  for (size_t i = 0; i <= kMaxClassArchives; ++i) {
    jar_.set_sha256(Sha256Hex(absl::StrCat(i)));
    Make();
    ASSERT_NE(Find(), "");
    if (i == 0) first = Find();
  }
  EXPECT_FALSE(fs::exists(first));
  EXPECT_EQ(std::distance(fs::directory_iterator(paths_.ClassArchives(*BootId())), {}),
            static_cast<ptrdiff_t>(kMaxClassArchives));
}

}  // namespace
}  // namespace jenkins_agent
