#include "driver/sandbox/host_entries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "driver/base/clock.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

namespace fs = std::filesystem;

constexpr int64_t kHourNs = 3'600'000'000'000;

class HostEntriesTest : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(Path("etc/ssl/certs")); }

  std::string Path(const std::string& path) const { return root_.path() + "/" + path; }
  HostPlaces Places() const {
    return {root_.path(), {"/bin", "/etc/localtime", "/etc/ssl/certs"}, "java"};
  }
  // Changes an entry as often as it takes for the directory's time to be another one.
  template <typename Change>
  void ChangeIn(const std::string& directory, Change change) {
    const timespec before = ChangeTime(directory);
    do {
      change();
    } while (ChangeTime(directory).tv_nsec == before.tv_nsec);
  }
  void Link(const std::string& path, const std::string& text) {
    fs::remove(Path(path));
    fs::create_symlink(text, Path(path));
  }

  const TempDir root_;

 private:
  timespec ChangeTime(const std::string& directory) const {
    struct stat found = {};
    EXPECT_EQ(::stat(Path(directory).c_str(), &found), 0);
    return found.st_ctim;
  }
};

TEST_F(HostEntriesTest, ALookTellsWhatThereIs) {
  Link("bin", "usr/bin");
  fs::create_directories(Path("etc/java-17"));
  fs::create_directories(Path("etc/javan"));
  fs::create_directories(Path("etc/other"));
  const HostEntries entries = LookAtHost(Places());
  EXPECT_EQ(entries.by_path.at("/bin").kind, HostEntry::Kind::kLink);
  EXPECT_EQ(entries.by_path.at("/bin").text, "usr/bin");
  EXPECT_EQ(entries.by_path.at("/etc/ssl/certs").kind, HostEntry::Kind::kOther);
  EXPECT_EQ(entries.by_path.at("/etc/localtime").kind, HostEntry::Kind::kMissing);
  EXPECT_EQ(entries.by_path.at("/etc/java-17").kind, HostEntry::Kind::kOther);
  EXPECT_THAT(entries.etc, ElementsAre("java-17", "javan"));
}

TEST_F(HostEntriesTest, TheSameLookServesUntilSomethingChanges) {
  HostEntryCache cache(Places());
  const int64_t later = RealtimeNs() + kHourNs;
  Link("etc/localtime", "first");
  const auto first = cache.Get(later);
  EXPECT_EQ(cache.Get(later), first);

  ChangeIn("etc", [&] { Link("etc/localtime", "second"); });
  EXPECT_EQ(cache.Get(later)->by_path.at("/etc/localtime").text, "second");
  ChangeIn("etc", [&] {
    fs::remove(Path("etc/java-21"));
    fs::create_directory(Path("etc/java-21"));
  });
  EXPECT_THAT(cache.Get(later)->etc, ElementsAre("java-21"));
  ChangeIn("etc/ssl", [&] {
    fs::create_directory(Path("etc/ssl/certs"));
    fs::remove(Path("etc/ssl/certs"));
  });
  EXPECT_EQ(cache.Get(later)->by_path.at("/etc/ssl/certs").kind, HostEntry::Kind::kMissing);
  ChangeIn("", [&] {
    fs::remove_all(Path("etc"));
    Link("bin", "usr/bin");
  });
  EXPECT_THAT(cache.Get(later)->etc, IsEmpty());
  EXPECT_EQ(cache.Get(later)->by_path.at("/bin").text, "usr/bin");
  EXPECT_EQ(cache.Get(later), cache.Get(later));
}

// Two changes within one tick of the kernel's clock look like one.
TEST_F(HostEntriesTest, WhatChangedJustNowIsLookedAtAgain) {
  HostEntryCache cache(Places());
  Link("etc/localtime", "first");
  const auto first = cache.Get(RealtimeNs());
  Link("etc/localtime", "second");
  EXPECT_EQ(first->by_path.at("/etc/localtime").text, "first");
  EXPECT_EQ(cache.Get(RealtimeNs())->by_path.at("/etc/localtime").text, "second");
}

}  // namespace
}  // namespace jenkins_agent
