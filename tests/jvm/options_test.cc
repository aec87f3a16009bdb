#include "driver/jvm/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace jenkins_agent {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;

constexpr int64_t kMiB = 1 << 20;

TEST(JvmOptionsTest, SmallAgentByDefault) {
  EXPECT_THAT(DefaultJvmOptions(512 * kMiB, {}),
              ElementsAre("-XX:+UseSerialGC", "-Xss512k", "-Xmx128m", "-XX:TieredStopAtLevel=1",
                          "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError"));
}

TEST(JvmOptionsTest, HeapIsAShareWithinBounds) {
  EXPECT_THAT(DefaultJvmOptions(64 * kMiB, {}), Contains("-Xmx64m"));
  EXPECT_THAT(DefaultJvmOptions(64 * 1024 * kMiB, {}), Contains("-Xmx256m"));
  EXPECT_THAT(DefaultJvmOptions(0, {}), Contains("-Xmx256m"));
}

TEST(JvmOptionsTest, TheUsersWin) {
  const std::vector<std::string> user = {"-XX:+UseG1GC",
                                         "-Xss1m",
                                         "-XX:MaxRAMPercentage=50",
                                         "-XX:TieredStopAtLevel=4",
                                         "-XX:+UsePerfData",
                                         "-XX:-ExitOnOutOfMemoryError"};
  EXPECT_EQ(DefaultJvmOptions(0, user), user);
}

TEST(JvmOptionsTest, UnrelatedOptionsChangeNothing) {
  const std::vector<std::string> options =
      DefaultJvmOptions(0, {"-XX:+UseStringDeduplication", "-XX:-UseGCOverheadLimit", "-Da=b"});
  EXPECT_THAT(options, Contains("-XX:+UseSerialGC"));
  EXPECT_EQ(options.back(), "-Da=b");
}

TEST(JvmOptionsTest, AnyCollectorOfTheUserReplacesOurs) {
  for (const char* option : {"-XX:+UseZGC", "-XX:+UseParallelGC", "-XX:-UseSerialGC"}) {
    EXPECT_THAT(DefaultJvmOptions(0, {option}), Not(Contains("-XX:+UseSerialGC"))) << option;
  }
}

}  // namespace
}  // namespace jenkins_agent
