#include "driver/task/filters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>

#include "driver/sandbox/seccomp.h"

namespace jenkins_agent {
namespace {

TEST(TaskFilters, TheSecondTaskEmitsNone) {
  TaskFilters filters;
  const auto first = filters.Get({CAP_NET_RAW}, true);
  EXPECT_EQ(filters.Get({CAP_NET_RAW}, true), first);  // the same object
  EXPECT_EQ(first->payload, PayloadFilter({CAP_NET_RAW}));
  EXPECT_EQ(first->init, InitFilter({CAP_NET_RAW}, true));
  EXPECT_EQ(filters.Get({CAP_NET_RAW}, false)->init, InitFilter({CAP_NET_RAW}));
  EXPECT_EQ(filters.Get({}, true)->init, InitFilter({}, true));
  EXPECT_EQ(filters.Get({}, false)->payload, PayloadFilter());
}

TEST(TaskFilters, KeepsNoMoreThanItMay) {
  TaskFilters filters;
  const auto usual = filters.Get({}, false);
  std::set<uint32_t> capabilities;
  for (uint32_t number = 0; number < TaskFilters::kMaxKept; ++number) {
    capabilities.insert(number);
    filters.Get(capabilities, false);
  }
  const auto late = filters.Get(capabilities, false);
  EXPECT_NE(filters.Get(capabilities, false), late);
  EXPECT_EQ(filters.Get(capabilities, false)->payload, late->payload);
  EXPECT_EQ(filters.Get({}, false), usual);
}

}  // namespace
}  // namespace jenkins_agent
