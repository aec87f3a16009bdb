#include "driver/supervisor/oom_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace jenkins_agent {
namespace {

// Linux 6.1, cgroup v1.
constexpr char kHead[] = "6,1289,84167295964,-;";
constexpr char kKill[] =
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=share,mems_allowed=0,oom_memcg="
    "/nomad/8eba2e14.agent,task_memcg=/nomad/8eba2e14.agent,task=python3,pid=6716,uid=87368\n"
    " SUBSYSTEM=x\n";

std::optional<OomProcess> Victim(const std::string& text, const std::string& cgroup) {
  const std::optional<OomLogRecord> record = ParseOomLogRecord(absl::StrCat(kHead, text), cgroup);
  return record.has_value() ? record->victim : std::nullopt;
}

TEST(OomLog, AKillNamesItsVictim) {
  const std::optional<OomLogRecord> record =
      ParseOomLogRecord(absl::StrCat(kHead, kKill), "8eba2e14.agent");
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->time_us, 84167295964);
  ASSERT_TRUE(record->victim.has_value());
  EXPECT_EQ(record->victim->name, "python3");
  EXPECT_EQ(record->victim->pid, 6716);
}

TEST(OomLog, InAnotherCgroupItIsNotOurs) {
  EXPECT_FALSE(Victim(kKill, "agent").has_value());
  EXPECT_FALSE(Victim(kKill, "8eba2e14").has_value());
  EXPECT_FALSE(Victim(kKill, "nomad").has_value());
}

TEST(OomLog, ANameMayHoldAnything) {
  const std::string before = "oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/nomad/x.agent,task=";
  const std::optional<OomProcess> victim = Victim(before + "a,pid=1,uid=0,pid=77,uid=5", "x.agent");
  ASSERT_TRUE(victim.has_value());
  EXPECT_EQ(victim->name, "a,pid=1,uid=0");
  EXPECT_EQ(victim->pid, 77);
  EXPECT_EQ(Victim(before + "\xff,pid=77,uid=5", "x.agent")->name, "\xef\xbf\xbd");
}

TEST(OomLog, WhatIsNoKillNamesNobody) {
  const std::string said = "python3: task_memcg=/nomad/x.agent,task=java,pid=1,uid=0";
  EXPECT_FALSE(Victim(said, "x.agent").has_value());
  const std::string half = "oom-kill:constraint=,task_memcg=/nomad/x.agent,task=";
  for (const char* rest : {"", "java", "java,pid=7", "java,pid=,uid=1", "java,pid=x,uid=1",
                           "java,uid=1,pid=7", "java\n,pid=7,uid=1"}) {
    EXPECT_FALSE(Victim(half + rest, "x.agent").has_value()) << rest;
  }
  for (const char* record : {"", ";", "6,1,x,-;", "6,1;oom-kill:constraint="}) {
    EXPECT_FALSE(ParseOomLogRecord(record, "x").has_value()) << record;
  }
}

TEST(OomLog, NobodyWasKilledInACgroupThatIsNotThere) {
  EXPECT_THAT(ReadOomLog("no-such-alloc.agent"), testing::IsEmpty());
}

}  // namespace
}  // namespace jenkins_agent
