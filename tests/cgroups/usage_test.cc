#include "cgroups/usage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace jenkins_agent::cgroups {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Optional;

FileReader FromMap(const std::map<std::string, std::string>& files) {
  return [files](const std::string& controller,
                 const std::string& file) -> std::optional<std::string> {
    const auto found = files.find(controller + "/" + file);
    if (found == files.end()) return std::nullopt;
    return found->second;
  };
}

TEST(UsageTest, ParsesNumbersAndKeys) {
  EXPECT_THAT(ParseNumber("9223372036854771712\n"), Optional(9223372036854771712u));
  EXPECT_EQ(ParseNumber("max\n"), std::nullopt);
  EXPECT_EQ(ParseNumber(""), std::nullopt);
  EXPECT_THAT(ParseKeyed("oom_kill_disable 0\nunder_oom 0\noom_kill 12\n", "oom_kill"),
              Optional(12u));
  EXPECT_EQ(ParseKeyed("oom_kill_disable 0\n", "oom_kill"), std::nullopt);
  EXPECT_EQ(ParseKeyed("oom_kill x\n", "oom_kill"), std::nullopt);
}

TEST(UsageTest, PidsOfOtherNamespacesAreLeftOut) {
  EXPECT_THAT(ParsePids("12\n0\n4194304\n"), ElementsAre(12, 4194304));
  EXPECT_THAT(ParsePids("-5\nx\n"), IsEmpty());
  EXPECT_THAT(ParsePids(""), IsEmpty());
}

TEST(UsageTest, ReadsV1) {
  const Usage usage = UsageFromV1(FromMap({
      {"memory/memory.usage_in_bytes", "1000\n"},
      {"memory/memory.max_usage_in_bytes", "2000\n"},
      {"memory/memory.kmem.usage_in_bytes", "30\n"},
      {"memory/memory.stat",
       "cache 1\nrss 2\ntotal_cache 400\ntotal_rss 500\ntotal_swap 6\n"
       "total_inactive_file 70\n"},
      {"cpuacct/cpuacct.usage", "9000\n"},
      {"cpuacct/cpuacct.usage_user", "7000\n"},
      {"cpuacct/cpuacct.usage_sys", "2000\n"},
      {"cpu/cpu.stat", "nr_periods 8\nnr_throttled 3\nthrottled_time 123\n"},
      {"pids/pids.current", "17\n"},
  }));
  EXPECT_THAT(usage.memory_usage_bytes, Optional(1000u));
  EXPECT_THAT(usage.memory_peak_bytes, Optional(2000u));
  EXPECT_THAT(usage.memory_kernel_bytes, Optional(30u));
  EXPECT_THAT(usage.memory_cache_bytes, Optional(400u));
  EXPECT_THAT(usage.memory_idle_cache_bytes, Optional(70u));
  EXPECT_THAT(usage.memory_rss_bytes, Optional(500u));
  EXPECT_THAT(usage.memory_swap_bytes, Optional(6u));
  EXPECT_THAT(usage.cpu_total_ns, Optional(9000u));
  EXPECT_THAT(usage.cpu_user_ns, Optional(7000u));
  EXPECT_THAT(usage.cpu_system_ns, Optional(2000u));
  EXPECT_THAT(usage.cpu_throttled_periods, Optional(3u));
  EXPECT_THAT(usage.cpu_throttled_ns, Optional(123u));
  EXPECT_THAT(usage.pids, Optional(17u));
}

TEST(UsageTest, ACeilingIsANumberOrNone) {
  const Ceiling v1 = CeilingFromV1(
      FromMap({{"memory/memory.limit_in_bytes", "4096\n"}, {"pids/pids.max", "64\n"}}));
  EXPECT_THAT(v1.memory_bytes, Optional(4096u));
  EXPECT_THAT(v1.pids, Optional(64u));
  const Ceiling open_v1 = CeilingFromV1(FromMap(
      {{"memory/memory.limit_in_bytes", "9223372036854771712\n"}, {"pids/pids.max", "max\n"}}));
  EXPECT_EQ(open_v1.memory_bytes, std::nullopt);
  EXPECT_EQ(open_v1.pids, std::nullopt);
  const Ceiling v2 =
      CeilingFromV2(FromMap({{"memory/memory.max", "4096\n"}, {"pids/pids.max", "64\n"}}));
  EXPECT_THAT(v2.memory_bytes, Optional(4096u));
  EXPECT_THAT(v2.pids, Optional(64u));
  EXPECT_EQ(CeilingFromV2(FromMap({{"memory/memory.max", "max\n"}})).memory_bytes, std::nullopt);
}

TEST(UsageTest, ReadsV2InNanoseconds) {
  const Usage usage = UsageFromV2(FromMap({
      {"memory/memory.current", "1000\n"},
      {"memory/memory.stat", "anon 500\nfile 400\nkernel 30\ninactive_file 70\n"},
      {"cpu/cpu.stat",
       "usage_usec 9\nuser_usec 7\nsystem_usec 2\nnr_periods 8\nnr_throttled 3\n"
       "throttled_usec 11\n"},
      {"pids/pids.current", "17\n"},
  }));
  EXPECT_THAT(usage.memory_usage_bytes, Optional(1000u));
  EXPECT_THAT(usage.memory_rss_bytes, Optional(500u));
  EXPECT_THAT(usage.memory_cache_bytes, Optional(400u));
  EXPECT_THAT(usage.memory_idle_cache_bytes, Optional(70u));
  EXPECT_THAT(usage.memory_kernel_bytes, Optional(30u));
  EXPECT_EQ(usage.memory_peak_bytes, std::nullopt);
  EXPECT_EQ(usage.memory_swap_bytes, std::nullopt);
  EXPECT_THAT(usage.cpu_total_ns, Optional(9000u));
  EXPECT_THAT(usage.cpu_user_ns, Optional(7000u));
  EXPECT_THAT(usage.cpu_system_ns, Optional(2000u));
  EXPECT_THAT(usage.cpu_throttled_periods, Optional(3u));
  EXPECT_THAT(usage.cpu_throttled_ns, Optional(11000u));
  EXPECT_THAT(usage.pids, Optional(17u));
}

TEST(UsageTest, StallsAreTheTotalOfSome) {
  const Stalls stalls = StallsFromV2(FromMap({
      {"cpu/cpu.pressure",
       "some avg10=0.00 avg60=0.00 avg300=0.00 total=12345\n"
       "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"},
      {"memory/memory.pressure", "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"},
      {"io/io.pressure", "some avg10=0.00 total=\n"},
  }));
  EXPECT_THAT(stalls.cpu_ns, Optional(12'345'000u));
  EXPECT_EQ(stalls.memory_ns, std::nullopt);
  EXPECT_EQ(stalls.io_ns, std::nullopt);
}

}  // namespace
}  // namespace jenkins_agent::cgroups
