#include "driver/task/stats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "driver/task/measure.h"

namespace jenkins_agent {
namespace {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;
using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr std::chrono::seconds kSecond{1};

TEST(Stats, PercentOfOneCoreAndTicks) {
  cgroups::Usage before, now;
  before.cpu_total_ns = 0;
  before.cpu_user_ns = 0;
  now.cpu_total_ns = 2'000'000'000;
  now.cpu_user_ns = 1'500'000'000;
  const nomad::TaskResourceUsage usage = ToResourceUsage(before, now, kSecond, 2400);
  EXPECT_DOUBLE_EQ(usage.cpu().percent(), 200);
  EXPECT_DOUBLE_EQ(usage.cpu().user_mode(), 150);
  EXPECT_DOUBLE_EQ(usage.cpu().total_ticks(), 4800);
  EXPECT_THAT(usage.cpu().measured_fields(), Contains(nomad::CPUUsage::TOTAL_TICKS));
  EXPECT_THAT(usage.cpu().measured_fields(), Not(Contains(nomad::CPUUsage::SYSTEM_MODE)));
}

TEST(Stats, TheFirstSampleClaimsNoPercentages) {
  cgroups::Usage now;
  now.cpu_total_ns = 5;
  now.memory_usage_bytes = 1024;
  const nomad::TaskResourceUsage usage = ToResourceUsage(std::nullopt, now, kSecond, 2400);
  EXPECT_THAT(usage.cpu().measured_fields(), IsEmpty());
  EXPECT_EQ(usage.memory().usage(), 1024u);
  EXPECT_THAT(usage.memory().measured_fields(), testing::ElementsAre(nomad::MemoryUsage::USAGE));
}

TEST(Stats, WhatTheHardLimitHeldBackIsToldFromTheFirstSampleOn) {
  cgroups::Usage now;
  now.cpu_throttled_periods = 3;
  now.cpu_throttled_ns = 123;
  const nomad::TaskResourceUsage usage = ToResourceUsage(std::nullopt, now, kSecond, 0);
  EXPECT_EQ(usage.cpu().throttled_periods(), 3u);
  EXPECT_EQ(usage.cpu().throttled_time(), 123u);
  EXPECT_THAT(usage.cpu().measured_fields(),
              testing::UnorderedElementsAre(nomad::CPUUsage::THROTTLED_PERIODS,
                                            nomad::CPUUsage::THROTTLED_TIME));
}

TEST(Stats, ACounterThatWentBackIsNotMeasured) {
  cgroups::Usage before, now;
  before.cpu_total_ns = 10;
  now.cpu_total_ns = 5;
  EXPECT_THAT(ToResourceUsage(before, now, kSecond, 0).cpu().measured_fields(), IsEmpty());
}

TEST(Growth, OfTasksThatAreInBothIsSummedAndNothingShrinks) {
  const WaitsByTask before = {{"gone", {.cpu = 100}},
                              {"a", {.throttled = 10, .cpu = 20, .memory = 30, .io = 40}},
                              {"b", {.cpu = 5}}};
  const WaitsByTask now = {{"a", {.throttled = 11, .cpu = 22, .memory = 33, .io = 44}},
                           {"b", {.cpu = 4}},
                           {"new", {.throttled = 1000, .io = 1000}}};
  const Waits growth = Growth(before, now);
  EXPECT_EQ(growth.throttled, 1u);
  EXPECT_EQ(growth.cpu, 2u);
  EXPECT_EQ(growth.memory, 3u);
  EXPECT_EQ(growth.io, 4u);
}

}  // namespace
}  // namespace jenkins_agent
