#include "driver/supervisor/oom_story.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace jenkins_agent {
namespace {

constexpr char kRunning[] =
    "Name:\tjava\nUmask:\t0022\nState:\tS (sleeping)\nVmRSS:\t  123456 kB\n"
    "SigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n";

TEST(OomStory, AProcessThatRunsIsNotDying) {
  const OomProcess process = ParseOomProcess(7, kRunning);
  EXPECT_EQ(process.pid, 7);
  EXPECT_EQ(process.name, "java");
  EXPECT_FALSE(process.dying);
}

TEST(OomStory, WhoIsOnTheWayOutIsDying) {
  const char* const dying[] = {
      // SIGKILL pending for the process, or for the thread
      "Name:\tcc1plus\nState:\tR (running)\nVmRSS:\t1 kB\nShdPnd:\t0000000000000100\n",
      "Name:\tcc1plus\nState:\tR (running)\nVmRSS:\t1 kB\nSigPnd:\t0000000000000100\n",
      // memory given back, then dead
      "Name:\tcc1plus\nState:\tR (running)\nSigPnd:\t0000000000000000\n",
      "Name:\tcc1plus\nState:\tZ (zombie)\nSigPnd:\t0000000000000000\n",
  };
  for (const char* status : dying) EXPECT_TRUE(ParseOomProcess(1, status).dying) << status;
  // SIGTERM alone kills nobody yet.
  EXPECT_FALSE(
      ParseOomProcess(1, "Name:\tx\nState:\tR (running)\nVmRSS:\t1 kB\nShdPnd:\t4000\n").dying);
}

TEST(OomStory, NamesAreMadePrintable) {
  EXPECT_EQ(ParseOomProcess(1, "Name:\ta\033[2Jb\n").name, "a?[2Jb");
  EXPECT_EQ(ParseOomProcess(1, "Name:\t\xff\n").name, "\xef\xbf\xbd");
  EXPECT_EQ(ParseOomProcess(1, "").name, "");
}

TEST(OomStory, OneSentence) {
  const OomFigures full = {int64_t{512} << 20, uint64_t{512} << 20};
  EXPECT_EQ(DescribeOom(1, {{4242, "cc1plus"}}, full),
            "out of memory: the kernel killed cc1plus (pid 4242); limit 512 MiB, peak 512 MiB");
  EXPECT_EQ(DescribeOom(1, {}, full),
            "out of memory: the kernel killed a process that ended before it could be named; limit "
            "512 MiB, peak 512 MiB");
  EXPECT_EQ(DescribeOom(3, {{7, "java"}, {8, "sh"}}, full),
            "out of memory: the kernel killed 3 processes, among them sh (pid 8); limit 512 MiB, "
            "peak 512 MiB");
  EXPECT_EQ(DescribeOom(2, {}, {int64_t{512} << 20, std::nullopt}),
            "out of memory: the kernel killed 2 processes; limit 512 MiB");
}

TEST(OomStory, ATaskFarBelowItsLimitPaidForTheHost) {
  EXPECT_EQ(DescribeOom(1, {{7, "java"}}, {int64_t{512} << 20, uint64_t{100} << 20}),
            "the host is out of memory: the kernel killed java (pid 7); limit 512 MiB, peak 100 "
            "MiB");
  EXPECT_EQ(DescribeOom(1, {{7, "java"}}, {0, uint64_t{100} << 20}),
            "the host is out of memory: the kernel killed java (pid 7); no limit, peak 100 MiB");
  // Less than a huge page below is the limit.
  EXPECT_THAT(DescribeOom(1, {{7, "java"}}, {int64_t{512} << 20, uint64_t{510} << 20}),
              testing::StartsWith("out of memory"));
}

}  // namespace
}  // namespace jenkins_agent
