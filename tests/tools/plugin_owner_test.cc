#include "driver/tools/plugin_owner.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::Optional;

constexpr char kLocks[] =
    "1: POSIX  ADVISORY  WRITE 11 08:01:7 0 EOF\n"
    "2: FLOCK  ADVISORY  WRITE 12 00:2d:70 0 EOF\n"
    "2: -> FLOCK  ADVISORY  WRITE 13 08:01:7 0 EOF\n"
    "3: FLOCK  ADVISORY  WRITE 14 08:01:7 0 EOF\n"
    "4: FLOCK  ADVISORY  WRITE -1 08:01:8 0 EOF\n";

TEST(FlockHolder, IsWhoHoldsAFlockNotWhoWaitsForIt) {
  EXPECT_THAT(FlockHolder(kLocks, 7), Optional(14));
  EXPECT_THAT(FlockHolder(kLocks, 70), Optional(12));
  EXPECT_EQ(FlockHolder(kLocks, 8), std::nullopt);  // of another pid namespace
  EXPECT_EQ(FlockHolder(kLocks, 0), std::nullopt);
  EXPECT_EQ(FlockHolder("", 7), std::nullopt);
}

TEST(PluginOwner, IsTheHolderOfTheLockUntilItLetsGo) {
  const TempDir dir;
  const StatePaths paths(dir.path());
  EXPECT_EQ(PluginOwner(paths), std::nullopt);
  ASSERT_OK(WriteFileAtomic(paths.OwnerLock(), absl::StrCat(::getpid())));
  EXPECT_EQ(PluginOwner(paths), std::nullopt);
  ASSERT_OK_AND_ASSIGN(Fd lock, OpenFile(paths.OwnerLock(), O_RDWR));
  ASSERT_EQ(::flock(lock.get(), LOCK_EX | LOCK_NB), 0);
  EXPECT_THAT(PluginOwner(paths), Optional(::getpid()));
  lock.Reset();
  EXPECT_EQ(PluginOwner(paths), std::nullopt);
}

}  // namespace
}  // namespace jenkins_agent
