#include "driver/agent/leftovers.h"

#include <gtest/gtest.h>

#include <string>

namespace jenkins_agent {
namespace {

using std::string_literals::operator""s;

TEST(Leftovers, DurableStepsAndWhoAskedForItOutliveTheirAgent) {
  EXPECT_TRUE(OutlivesItsAgent("PATH=/bin\0JENKINS_SERVER_COOKIE=durable-0123abcd\0A=b\0"s));
  EXPECT_TRUE(OutlivesItsAgent("JENKINS_SERVER_COOKIE=please-do-not-kill-me\0"s));
  EXPECT_TRUE(OutlivesItsAgent("BUILD_ID=dontKillMe"));
  EXPECT_TRUE(OutlivesItsAgent("JENKINS_NODE_COOKIE=dontKillMe\0"s));
}

TEST(Leftovers, OtherProcessesOfItsBuildsDoNot) {
  EXPECT_FALSE(OutlivesItsAgent(""));
  EXPECT_FALSE(OutlivesItsAgent("JENKINS_SERVER_COOKIE=0123abcd\0BUILD_ID=17\0"s));
  EXPECT_FALSE(OutlivesItsAgent("XJENKINS_SERVER_COOKIE=durable-1\0"s));
  EXPECT_FALSE(OutlivesItsAgent("A=JENKINS_SERVER_COOKIE=durable-1\0"s));
  EXPECT_FALSE(OutlivesItsAgent("JENKINS_SERVER_COOKIE=please-do-not-kill-me-please\0"s));
}

}  // namespace
}  // namespace jenkins_agent
