#include "driver/task/leftovers.h"

#include <gtest/gtest.h>

namespace jenkins_agent {
namespace {

using Record = Leftover::Record;
using std::chrono::seconds;

TEST(Leftovers, WhatRunsIsLeftAlone) {
  for (const Record record : {Record::kValid, Record::kMissing, Record::kDamaged}) {
    EXPECT_EQ(Decide({.record = record, .supervisor_alive = true}), LeftoverAction::kLeave);
  }
}

TEST(Leftovers, WhatIsDeadIsRemoved) {
  for (const Record record : {Record::kValid, Record::kMissing, Record::kDamaged}) {
    EXPECT_EQ(Decide({.record = record}), LeftoverAction::kRemove);
  }
}

TEST(Leftovers, AnExitIsKeptForAnAgentThatWasAway) {
  Leftover ended{.record = Record::kValid};
  ended.exit_age = seconds(1);
  EXPECT_EQ(Decide(ended), LeftoverAction::kKeep);
  ended.exit_age = kKeepExit - seconds(1);
  EXPECT_EQ(Decide(ended), LeftoverAction::kKeep);
  ended.exit_age = kKeepExit;
  EXPECT_EQ(Decide(ended), LeftoverAction::kRemove);
}

TEST(Leftovers, AnInterruptedDestroyIsFinished) {
  EXPECT_EQ(Decide({.record = Record::kValid, .marked = true, .supervisor_alive = true}),
            LeftoverAction::kEnd);
  Leftover ended{.record = Record::kValid, .marked = true};
  ended.exit_age = seconds(1);
  EXPECT_EQ(Decide(ended), LeftoverAction::kEnd);
}

TEST(Leftovers, AnEarlierBootIsRemovedAndANewerDriversIsNot) {
  Leftover earlier{.record = Record::kEarlierBoot};
  earlier.exit_age = seconds(1);
  EXPECT_EQ(Decide(earlier), LeftoverAction::kRemove);
  EXPECT_EQ(Decide({.record = Record::kNewer}), LeftoverAction::kLeave);
}

}  // namespace
}  // namespace jenkins_agent
