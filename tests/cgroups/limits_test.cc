#include "cgroups/limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace jenkins_agent::cgroups {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;

std::map<std::string, std::string> ByFile(const std::vector<LimitWrite>& writes) {
  std::map<std::string, std::string> values;
  for (const LimitWrite& write : writes) values[write.file] = write.value;
  return values;
}

TEST(LimitsTest, SharesStayInTheKernelsRange) {
  EXPECT_EQ(ClampShares(0), 2);
  EXPECT_EQ(ClampShares(1), 2);
  EXPECT_EQ(ClampShares(2600), 2600);
  EXPECT_EQ(ClampShares(262144), 262144);
  EXPECT_EQ(ClampShares(1000000), 262144);
}

TEST(LimitsTest, WeightsAreThoseOfRuncCrunAndNomad) {
  const std::map<int64_t, int64_t> table = {
      {0, 1},       {2, 1},        {100, 17},       {250, 34},       {500, 58},
      {1000, 99},   {1024, 100},   {2000, 170},     {2600, 210},     {5000, 356},
      {10000, 627}, {20000, 1112}, {262143, 10000}, {262144, 10000}, {300000, 10000}};
  for (const auto& [shares, weight] : table) EXPECT_EQ(SharesToWeight(shares), weight) << shares;
}

TEST(LimitsTest, V1WritesEveryLimit) {
  const std::map<std::string, std::string> values =
      ByFile(LimitWritesV1({.memory_bytes = 300 << 20,
                            .memory_soft_bytes = 200 << 20,
                            .cpu_shares = 500,
                            .cpuset_cpus = "2-3",
                            .pids = 64}));
  EXPECT_THAT(values, Contains(Pair("memory.limit_in_bytes", "314572800")));
  EXPECT_THAT(values, Contains(Pair("memory.soft_limit_in_bytes", "209715200")));
  EXPECT_THAT(values, Contains(Pair("memory.swappiness", "0")));
  EXPECT_THAT(values, Contains(Pair("cpu.shares", "500")));
  EXPECT_THAT(values, Contains(Pair("cpuset.cpus", "2-3")));
  EXPECT_THAT(values, Contains(Pair("pids.max", "64")));
  EXPECT_THAT(values, Contains(Pair("freezer.state", "THAWED")));
}

TEST(LimitsTest, NoLimitTakesBackTheEarlierOne) {
  const std::map<std::string, std::string> v1 = ByFile(LimitWritesV1({}));
  EXPECT_THAT(v1, Contains(Pair("memory.limit_in_bytes", "-1")));
  EXPECT_THAT(v1, Contains(Pair("memory.soft_limit_in_bytes", "-1")));
  EXPECT_THAT(v1, Contains(Pair("cpu.shares", "1024")));
  EXPECT_THAT(v1, Contains(Pair("pids.max", "max")));
  EXPECT_THAT(v1, Not(Contains(Key("cpuset.cpus"))));

  const std::map<std::string, std::string> v2 = ByFile(LimitWritesV2({}));
  EXPECT_THAT(v2, Contains(Pair("memory.max", "max")));
  EXPECT_THAT(v2, Contains(Pair("memory.low", "0")));
  EXPECT_THAT(v2, Contains(Pair("cpu.weight", "100")));
  EXPECT_THAT(v2, Contains(Pair("pids.max", "max")));
}

TEST(LimitsTest, V2WritesEveryLimit) {
  const std::map<std::string, std::string> values =
      ByFile(LimitWritesV2({.memory_bytes = 1 << 20,
                            .memory_soft_bytes = 1 << 19,
                            .cpu_shares = 2000,
                            .cpuset_cpus = "0",
                            .pids = 5}));
  EXPECT_THAT(values, Contains(Pair("memory.max", "1048576")));
  EXPECT_THAT(values, Contains(Pair("memory.low", "524288")));
  EXPECT_THAT(values, Contains(Pair("memory.swap.max", "0")));
  EXPECT_THAT(values, Contains(Pair("cpu.weight", "170")));
  EXPECT_THAT(values, Contains(Pair("cpuset.cpus", "0")));
  EXPECT_THAT(values, Contains(Pair("pids.max", "5")));
}

// The kernel refuses a limit of memory alone above that of memory and swap together.
TEST(LimitsTest, SwapIsTakenBackBeforeAndSetAfterTheMemoryLimit) {
  std::vector<std::string> order;
  for (const LimitWrite& write : LimitWritesV1({.memory_bytes = 4096})) {
    if (write.file == "memory.limit_in_bytes" || write.file == "memory.memsw.limit_in_bytes") {
      order.push_back(write.file + " " + write.value);
    }
  }
  EXPECT_THAT(order, ElementsAre("memory.memsw.limit_in_bytes -1", "memory.limit_in_bytes 4096",
                                 "memory.memsw.limit_in_bytes 4096"));
}

TEST(LimitsTest, IoWeightsAreTheKernelsOwn) {
  EXPECT_EQ(ByFile(IoWeightWritesV1(10)).at("blkio.bfq.weight"), "10");
  EXPECT_EQ(ByFile(IoWeightWritesV1(1000)).at("blkio.weight"), "1000");
  const std::map<int64_t, std::string> io_weights = {
      {10, "1"}, {100, "100"}, {500, "4950"}, {1000, "10000"}};
  for (const auto& [weight, expected] : io_weights) {
    EXPECT_EQ(ByFile(IoWeightWritesV2(weight)).at("io.weight"), expected) << weight;
    EXPECT_EQ(ByFile(IoWeightWritesV2(weight)).at("io.bfq.weight"), std::to_string(weight));
  }
}

TEST(LimitsTest, OnlyLimitsThatAreSetMustSucceed) {
  for (const LimitWrite& write : LimitWritesV2({.pids = 5})) {
    EXPECT_EQ(write.required, write.file == "pids.max") << write.file;
  }
}

}  // namespace
}  // namespace jenkins_agent::cgroups
