#include "driver/service/fingerprint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace jenkins_agent {
namespace {

using Response = hashicorp::nomad::plugins::drivers::proto::FingerprintResponse;
using ::testing::HasSubstr;

HostFacts GoodHost() {
  HostFacts facts;
  facts.root = true;
  facts.cgroups_version = "1";
  facts.javas = {{"/usr/lib/jvm/17", 17, "17.0.15", ""}, {"/opt/17", 17, "17.0.1", ""}};
  return facts;
}

std::string Attribute(const Response& response, const std::string& key) {
  const auto it = response.attributes().find(key);
  return it == response.attributes().end() ? "(none)" : it->second.string_val();
}

TEST(FingerprintTest, AHostThatHasEverythingIsHealthy) {
  const Response response = Fingerprint(GoodHost());
  EXPECT_EQ(response.health(), Response::HEALTHY);
  EXPECT_EQ(response.health_description(), "Healthy");
  EXPECT_EQ(Attribute(response, "driver.jenkins-agent"), "1");
  EXPECT_EQ(Attribute(response, "driver.jenkins-agent.java.17"), "17.0.15");
  EXPECT_EQ(Attribute(response, "driver.jenkins-agent.cgroups"), "1");
}

TEST(FingerprintTest, WithoutRootItIsNotThere) {
  HostFacts facts = GoodHost();
  facts.root = false;
  const Response response = Fingerprint(facts);
  EXPECT_EQ(response.health(), Response::UNDETECTED);
  EXPECT_EQ(response.health_description(), "Driver must run as root");
  EXPECT_EQ(response.attributes_size(), 0);
}

TEST(FingerprintTest, WithoutCgroupsItIsUnhealthy) {
  HostFacts facts = GoodHost();
  facts.cgroups_version.clear();
  facts.cgroups_error = "no cgroups are mounted";
  const Response response = Fingerprint(facts);
  EXPECT_EQ(response.health(), Response::UNHEALTHY);
  EXPECT_EQ(response.health_description(), "cgroups: no cgroups are mounted");
}

TEST(FingerprintTest, WhatAJobCannotUseIsTold) {
  HostFacts facts = GoodHost();
  facts.javas.clear();
  facts.tools = absl::NotFoundError("libcurl.so.4");
  const Response response = Fingerprint(facts);
  EXPECT_EQ(response.health(), Response::HEALTHY);
  EXPECT_THAT(response.health_description(), HasSubstr("no JDK found"));
  EXPECT_THAT(response.health_description(), HasSubstr("libcurl.so.4"));
}

TEST(FingerprintTest, AnAttributeThatIsGoneIsSentEmpty) {
  const Response before = Fingerprint(GoodHost());
  HostFacts facts = GoodHost();
  facts.javas = {{"/usr/lib/jvm/21", 21, "21.0.1", ""}};
  Response now = Fingerprint(facts);
  ClearGoneAttributes(before, now);
  EXPECT_EQ(Attribute(now, "driver.jenkins-agent.java.17"), "");
  EXPECT_EQ(Attribute(now, "driver.jenkins-agent.java.21"), "21.0.1");

  Response later = Fingerprint(facts);
  ClearGoneAttributes(now, later);
  EXPECT_EQ(Attribute(later, "driver.jenkins-agent.java.17"), "");
  Response back = Fingerprint(GoodHost());
  ClearGoneAttributes(later, back);
  EXPECT_EQ(Attribute(back, "driver.jenkins-agent.java.17"), "17.0.15");
}

}  // namespace
}  // namespace jenkins_agent
