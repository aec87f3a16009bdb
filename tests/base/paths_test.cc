#include "driver/base/paths.h"

#include <gtest/gtest.h>

namespace jenkins_agent {
namespace {

TEST(Paths, TaskDirectoryIsNamedByDigestOnly) {
  const StatePaths paths("/state");
  // First 16 bytes of SHA-256("../../etc/passwd"), as sha256sum prints them.
  EXPECT_EQ(paths.Task("../../etc/passwd"), "/state/tasks/3754d6cb3a38e1185e5b382d5f3ef3f1");
  EXPECT_NE(paths.Task("a/b/1"), paths.Task("a/b/2"));
}

}  // namespace
}  // namespace jenkins_agent
