#include "driver/base/file.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

TEST(File, AtomicWriteReplacesContentAndLeavesNoTemporary) {
  const TempDir dir;
  const std::string path = dir.path() + "/record";
  ASSERT_OK(WriteFileAtomic(path, "one"));
  ASSERT_OK(WriteFileAtomic(path, "two"));
  ASSERT_OK_AND_ASSIGN(const std::string content, ReadFile(path));
  EXPECT_EQ(content, "two");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

TEST(File, ReadIsBounded) {
  const TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir.path() + "/big", std::string(100, 'x')));
  EXPECT_THAT(ReadFile(dir.path() + "/big", 99),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("longer than 99 bytes")));
  EXPECT_THAT(ReadFile(dir.path() + "/none"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/none: No such file")));
}

TEST(File, RemoveTreeDoesNotFollowLinks) {
  const TempDir dir;
  const std::string outside = dir.path() + "/outside";
  ASSERT_OK(MakeDirs(outside));
  ASSERT_OK(WriteFileAtomic(outside + "/keep", "x"));
  ASSERT_OK(MakeDirs(dir.path() + "/tree/a/b"));
  ASSERT_OK(WriteFileAtomic(dir.path() + "/tree/a/file", "x"));
  std::filesystem::create_directory_symlink(outside, dir.path() + "/tree/a/link");
  ASSERT_OK(RemoveTree(dir.path() + "/tree"));
  EXPECT_FALSE(std::filesystem::exists(dir.path() + "/tree"));
  EXPECT_TRUE(std::filesystem::exists(outside + "/keep"));
  EXPECT_OK(RemoveTree(dir.path() + "/tree"));
  std::filesystem::create_directory_symlink(outside, dir.path() + "/top");
  ASSERT_OK(RemoveTree(dir.path() + "/top"));
  EXPECT_TRUE(std::filesystem::exists(outside + "/keep"));
}

TEST(File, RemoveTreeStopsAtAMountPoint) {
  REQUIRES_ROOT();
  const TempDir dir;
  const std::string mounted = dir.path() + "/tree/mounted";
  ASSERT_OK(MakeDirs(mounted));
  ASSERT_EQ(::mount("tmpfs", mounted.c_str(), "tmpfs", 0, "size=64k"), 0);
  ASSERT_OK(WriteFileAtomic(mounted + "/keep", "x"));
  EXPECT_THAT(RemoveTree(dir.path() + "/tree"), StatusIs(absl::StatusCode::kFailedPrecondition,
                                                         HasSubstr("mounted is a mount point")));
  EXPECT_TRUE(std::filesystem::exists(mounted + "/keep"));
  ASSERT_EQ(::umount(mounted.c_str()), 0);
}

TEST(File, SealedMemfdCannotBeChanged) {
  ASSERT_OK_AND_ASSIGN(const Fd fd, MakeSealedMemfd("test", "content"));
  EXPECT_EQ(::write(fd.get(), "x", 1), -1);
  EXPECT_EQ(::ftruncate(fd.get(), 1), -1);
  EXPECT_NE(::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  ASSERT_OK_AND_ASSIGN(const std::string content, ReadAll(fd.get(), 100));
  EXPECT_EQ(content, "content");
}

}  // namespace
}  // namespace jenkins_agent
