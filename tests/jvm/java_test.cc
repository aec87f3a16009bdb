#include "driver/jvm/java.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class JavaTest : public ::testing::Test {
 protected:
  std::string AddJava(const std::string& name, const std::string& release) {
    const fs::path home = fs::path(dir_.path()) / name;
    fs::create_directories(home / "bin");
    std::ofstream(home / "bin/java") << "#!/bin/sh\n";
    fs::permissions(home / "bin/java", fs::perms::owner_all);
    if (!release.empty()) std::ofstream(home / "release") << release;
    return home;
  }
  const TempDir dir_;
};

TEST_F(JavaTest, NewestFirstAndEachOnce) {
  AddJava("a8", "JAVA_VERSION=\"1.8.0_402\"\n");
  AddJava("b17", "IMPLEMENTOR=\"Debian\"\nJAVA_VERSION=\"17.0.9\"\n");
  AddJava("c17", "JAVA_VERSION=\"17.0.15\"\r\n");
  AddJava("d25", "JAVA_VERSION=\"25\"\n");
  fs::create_directory_symlink(dir_.path() + "/b17", dir_.path() + "/z-link");
  fs::create_directory(dir_.path() + "/not-java");
  std::ofstream(dir_.path() + "/file") << "x";
  ASSERT_OK_AND_ASSIGN(const std::vector<JavaInstall> homes, FindJavaHomes({dir_.path() + "/*"}));
  ASSERT_EQ(homes.size(), 4u);
  EXPECT_EQ(homes[0].feature, 25u);
  EXPECT_EQ(homes[1].version, "17.0.15");
  EXPECT_EQ(homes[2].version, "17.0.9");
  EXPECT_EQ(homes[2].vendor, "Debian");
  EXPECT_EQ(homes[2].path, fs::canonical(dir_.path() + "/b17"));
  EXPECT_EQ(homes[3].feature, 8u);
}

TEST_F(JavaTest, NothingFoundIsNoError) {
  ASSERT_OK_AND_ASSIGN(const std::vector<JavaInstall> homes,
                       FindJavaHomes({dir_.path() + "/none/*"}));
  EXPECT_TRUE(homes.empty());
}

TEST_F(JavaTest, SaysWhyADirectoryIsNoJava) {
  EXPECT_THAT(ReadJavaHome(dir_.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("bin/java")));
  EXPECT_THAT(ReadJavaHome(AddJava("no-release", "")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("release")));
  EXPECT_THAT(ReadJavaHome(AddJava("bad", "JAVA_VERSION=\"x\"\n")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("JAVA_VERSION")));
}

TEST(HostJavaTest, FindsThisMachinesJdks) {
  ASSERT_OK_AND_ASSIGN(const std::vector<JavaInstall> homes, FindJavaHomes({}));
  if (homes.empty()) GTEST_SKIP() << "needs a JDK in /usr/lib/jvm or /opt";
  for (const JavaInstall& home : homes) EXPECT_GE(home.feature, 8u) << home.path;
}

}  // namespace
}  // namespace jenkins_agent
