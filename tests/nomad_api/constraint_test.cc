#include "driver/nomad/constraint.h"

#include <gtest/gtest.h>

namespace jenkins_agent::nomad {
namespace {

Node SomeNode() {
  Node node;
  node.id = "11adfebf";
  node.name = "node-c";
  node.datacenter = "dc2";
  node.node_class = "build";
  node.pool = "default";
  node.has_details = true;
  node.attributes = {{"kernel.name", "linux"},
                     {"cpu.numcores", "16"},
                     {"load", "1.5"},
                     {"driver.java.version", "17.0.15"},
                     {"features", "a, b,c"}};
  node.meta = {{"rack", "r1"}};
  return node;
}

TEST(Constraint, TargetsAreResolvedOnTheNode) {
  const Node node = SomeNode();
  EXPECT_EQ(Resolve("${node.class}", node), "build");
  EXPECT_EQ(Resolve("${node.datacenter}", node), "dc2");
  EXPECT_EQ(Resolve("${node.unique.name}", node), "node-c");
  EXPECT_EQ(Resolve("${attr.kernel.name}", node), "linux");
  EXPECT_EQ(Resolve("${meta.rack}", node), "r1");
  EXPECT_EQ(Resolve("${meta.row}", node), std::nullopt);
  EXPECT_EQ(Resolve("plain", node), "plain");
}

TEST(Constraint, EveryOperatorDecidesAsNomadDoes) {
  const Node node = SomeNode();
  const auto meets = [&node](const char* left, const char* operation, const char* right) {
    return Meets({left, operation, right}, node);
  };
  EXPECT_TRUE(meets("${attr.kernel.name}", "=", "linux"));
  EXPECT_FALSE(meets("${attr.kernel.name}", "=", "windows"));
  EXPECT_FALSE(meets("${meta.row}", "=", ""));
  EXPECT_TRUE(meets("${attr.kernel.name}", "!=", "windows"));
  EXPECT_TRUE(meets("${meta.row}", "!=", "x"));
  // As numbers, not as texts.
  EXPECT_TRUE(meets("${attr.cpu.numcores}", ">", "9"));
  EXPECT_TRUE(meets("${attr.load}", "<=", "1.50"));
  EXPECT_TRUE(meets("${attr.kernel.name}", "<", "windows"));
  EXPECT_FALSE(meets("${meta.row}", "<", "9"));
  EXPECT_TRUE(meets("${attr.driver.java.version}", "version", ">= 17"));
  EXPECT_FALSE(meets("${attr.driver.java.version}", "version", ">= 25"));
  EXPECT_TRUE(meets("${attr.driver.java.version}", "semver", ">= 17"));
  EXPECT_TRUE(meets("${node.unique.name}", "regexp", "node-[a-c]$"));
  EXPECT_FALSE(meets("${node.unique.name}", "regexp", "("));
  EXPECT_TRUE(meets("${attr.features}", "set_contains", "c,a"));
  EXPECT_FALSE(meets("${attr.features}", "set_contains_all", "c,d"));
  EXPECT_TRUE(meets("${attr.features}", "set_contains_any", "d, c"));
  EXPECT_TRUE(meets("${meta.rack}", "is_set", ""));
  EXPECT_TRUE(meets("${meta.row}", "is_not_set", ""));
  EXPECT_FALSE(meets("${meta.rack}", "unheard of", "r1"));
}

TEST(Constraint, DistinctHostsIsOnUnlessItSaysFalse) {
  EXPECT_TRUE(IsDistinctHosts({"", "distinct_hosts", ""}));
  EXPECT_TRUE(IsDistinctHosts({"", "distinct_hosts", "true"}));
  EXPECT_FALSE(IsDistinctHosts({"", "distinct_hosts", "false"}));
  EXPECT_FALSE(IsDistinctHosts({"", "=", "true"}));
}

TEST(Constraint, DatacentersMayHaveStars) {
  EXPECT_TRUE(GlobMatches("*", "dc1"));
  EXPECT_TRUE(GlobMatches("dc*", "dc1"));
  EXPECT_TRUE(GlobMatches("*-east-*", "us-east-1"));
  EXPECT_FALSE(GlobMatches("*-east-*", "us-west-1"));
  EXPECT_FALSE(GlobMatches("dc1", "dc10"));
  EXPECT_FALSE(GlobMatches("dc*9", "dc1"));
}

}  // namespace
}  // namespace jenkins_agent::nomad
