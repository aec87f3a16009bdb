#include "driver/service/fingerprint.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

namespace jenkins_agent {
namespace {

using Response = hashicorp::nomad::plugins::drivers::proto::FingerprintResponse;
using ::google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

HostFacts GoodHost() {
  HostFacts facts;
  facts.root = true;
  facts.cgroups_version = "1";
  facts.user_namespaces = true;
  facts.max_threads = 32000;
  facts.javas = {{"/usr/lib/jvm/17", 17, "17.0.15", ""}, {"/opt/17", 17, "17.0.1", ""}};
  return facts;
}

std::string Attribute(const Response& response, const std::string& key) {
  const auto it = response.attributes().find(key);
  return it == response.attributes().end() ? "(none)" : it->second.string_val();
}

TEST(FingerprintTest, AHostThatHasEverythingIsHealthy) {
  const Response response = Fingerprint(GoodHost(), {});
  EXPECT_EQ(response.health(), Response::HEALTHY);
  EXPECT_EQ(response.health_description(), "Healthy");
  EXPECT_EQ(Attribute(response, "driver.jenkins-agent"), "1");
  EXPECT_EQ(Attribute(response, "driver.jenkins-agent.java.17"), "17.0.15");
  EXPECT_EQ(Attribute(response, "driver.jenkins-agent.cgroups"), "1");
}

TEST(FingerprintTest, WithoutRootItIsNotThere) {
  HostFacts facts = GoodHost();
  facts.root = false;
  const Response response = Fingerprint(facts, {});
  EXPECT_EQ(response.health(), Response::UNDETECTED);
  EXPECT_EQ(response.health_description(), "Driver must run as root");
  EXPECT_EQ(response.attributes_size(), 0);
}

TEST(FingerprintTest, WithoutCgroupsItIsUnhealthy) {
  HostFacts facts = GoodHost();
  facts.cgroups_version.clear();
  facts.cgroups_error = "no cgroups are mounted";
  const Response response = Fingerprint(facts, {});
  EXPECT_EQ(response.health(), Response::UNHEALTHY);
  EXPECT_EQ(response.health_description(), "cgroups: no cgroups are mounted");
}

TEST(FingerprintTest, WhereNoAgentCanRunItIsUnhealthyInAFixedText) {
  PluginConfig config;
  config.state_dir = "/var/lib/x";
  HostFacts facts = GoodHost();
  facts.state_dir_error = "is on a full disk";
  EXPECT_EQ(Fingerprint(facts, config).health(), Response::UNHEALTHY);
  EXPECT_EQ(Fingerprint(facts, config).health_description(),
            "state_dir /var/lib/x is on a full disk");
  facts = GoodHost();
  facts.javas.clear();
  facts.tools = absl::NotFoundError("libcurl.so.4");
  EXPECT_EQ(Fingerprint(facts, config).health(), Response::UNHEALTHY);
  EXPECT_EQ(Fingerprint(facts, config).health_description(),
            "no JDK found, see option java_homes, and no image can be pulled: libcurl.so.4");
}

TEST(FingerprintTest, WithoutAJdkItIsForImagesThatHaveJava) {
  HostFacts facts = GoodHost();
  EXPECT_EQ(Attribute(Fingerprint(facts, {}), "driver.jenkins-agent.java"), "true");
  facts.javas.clear();
  const Response response = Fingerprint(facts, {});
  EXPECT_EQ(response.health(), Response::HEALTHY);
  EXPECT_EQ(response.health_description(),
            "Healthy; no JDK found, see option java_homes: agents need an image that has Java");
  EXPECT_EQ(Attribute(response, "driver.jenkins-agent.java"), "false");
}

TEST(FingerprintTest, WhatAJobCannotUseIsTold) {
  HostFacts facts = GoodHost();
  facts.tools = absl::NotFoundError("libcurl.so.4");
  const Response response = Fingerprint(facts, {});
  EXPECT_EQ(response.health(), Response::HEALTHY);
  EXPECT_THAT(response.health_description(), HasSubstr("libcurl.so.4"));
}

TEST(FingerprintTest, LimitsOfHostAndConfigurationAreAttributes) {
  PluginConfig config;
  config.allow_root = true;
  config.isolation.allow_caps = {"net_admin", "mknod"};
  const Response response = Fingerprint(GoodHost(), config);
  const auto attribute = [&response](const std::string& key) {
    return Attribute(response, "driver.jenkins-agent." + key);
  };
  EXPECT_EQ(attribute("allow_root"), "true");
  EXPECT_EQ(attribute("allow_privileged"), "false");
  EXPECT_EQ(attribute("allow_caps"), "net_admin,mknod");
  EXPECT_EQ(attribute("userns"), "true");
  EXPECT_EQ(attribute("io_weight"), "false");
  EXPECT_EQ(attribute("log_collection"), "nomad");
  EXPECT_EQ(attribute("max_threads"), "32000");
}

// What changes by itself on a host must not be in it.
TEST(FingerprintTest, TwoLooksAtThisHostAreTheSame) {
  PluginConfig config;
  config.state_dir = "/tmp/state";
  const Response first = Fingerprint(ReadHostFacts(config), config);
  const std::vector<char> used(32 << 20, 'x');  // memory and a moment pass
  EXPECT_EQ(used.back(), 'x');
  const Response second = Fingerprint(ReadHostFacts(config), config);
  EXPECT_TRUE(MessageDifferencer::Equals(first, second));
}

Response Healthy() { return Fingerprint(GoodHost(), {}); }
Response FullDisk() {
  HostFacts facts = GoodHost();
  facts.state_dir_error = "is on a full disk";
  return Fingerprint(facts, {});
}

TEST(FingerprintPaceTest, NothingIsSentWhenNothingChanged) {
  FingerprintPace pace;
  int sent = 0;
  for (int look = 0; look < 1000; ++look) sent += pace.Next(Healthy()).has_value();
  EXPECT_EQ(sent, 1);
}

TEST(FingerprintPaceTest, TroubleIsToldWhenSeenAgainAndItsEndWhenItStaysAway) {
  FingerprintPace pace;
  ASSERT_TRUE(pace.Next(Healthy()).has_value());
  EXPECT_FALSE(pace.Next(FullDisk()).has_value());
  const std::optional<Response> trouble = pace.Next(FullDisk());
  ASSERT_TRUE(trouble.has_value());
  EXPECT_EQ(trouble->health(), Response::UNHEALTHY);
  for (int look = 1; look < FingerprintPace::kLooksToHeal; ++look) {
    EXPECT_FALSE(pace.Next(Healthy()).has_value()) << look;
  }
  const std::optional<Response> healed = pace.Next(Healthy());
  ASSERT_TRUE(healed.has_value());
  EXPECT_EQ(healed->health(), Response::HEALTHY);
}

TEST(FingerprintPaceTest, ADiskThatIsFullNowAndThenIsNotTold) {
  FingerprintPace pace;
  int sent = 0;
  for (int look = 0; look < 1000; ++look) {
    sent += pace.Next(look % 2 == 0 ? Healthy() : FullDisk()).has_value();
  }
  EXPECT_EQ(sent, 1);
}

Response WithImage(Response response) {
  (*response.mutable_attributes())[ImageAttribute("r.example/a:1")].set_string_val("1234");
  return response;
}

TEST(FingerprintPaceTest, ImagesAreToldAtOnceAndOnce) {
  for (const auto look : {&FingerprintPace::Next, &FingerprintPace::NextImages}) {
    FingerprintPace pace;
    ASSERT_TRUE(pace.Next(Healthy()).has_value());
    const std::optional<Response> kept = (pace.*look)(WithImage(Healthy()));
    ASSERT_TRUE(kept.has_value());
    EXPECT_NE(Attribute(*kept, ImageAttribute("r.example/a:1")), "");
    EXPECT_FALSE((pace.*look)(WithImage(Healthy())).has_value());
    const std::optional<Response> removed = (pace.*look)(Healthy());
    ASSERT_TRUE(removed.has_value());
    EXPECT_EQ(Attribute(*removed, ImageAttribute("r.example/a:1")), "");
    EXPECT_FALSE((pace.*look)(Healthy()).has_value());
  }
}

TEST(FingerprintPaceTest, ALookAtTheImagesIsNoneAtTheDisk) {
  FingerprintPace pace;
  EXPECT_FALSE(pace.NextImages(Healthy()).has_value());  // the first is of all
  ASSERT_TRUE(pace.Next(Healthy()).has_value());
  EXPECT_FALSE(pace.Next(FullDisk()).has_value());
  for (int look = 0; look < 100; ++look) {
    EXPECT_FALSE(pace.NextImages(FullDisk()).has_value());
    EXPECT_FALSE(pace.NextImages(WithImage(FullDisk())).has_value());  // both, or neither yet
  }
  EXPECT_TRUE(pace.Next(FullDisk()).has_value());
}

TEST(FingerprintPaceTest, AnAttributeThatIsGoneIsClearedOnce) {
  FingerprintPace pace;
  ASSERT_TRUE(pace.Next(Healthy()).has_value());
  HostFacts facts = GoodHost();
  facts.javas = {{"/usr/lib/jvm/21", 21, "21.0.1", ""}};
  int sent = 0;
  for (int look = 0; look < 100; ++look) {
    const std::optional<Response> news = pace.Next(Fingerprint(facts, {}));
    if (!news.has_value()) continue;
    ++sent;
    EXPECT_EQ(Attribute(*news, "driver.jenkins-agent.java.17"), "");
  }
  EXPECT_EQ(sent, 1);
}

TEST(FingerprintTest, AnAttributeThatIsGoneIsSentEmpty) {
  const Response before = Fingerprint(GoodHost(), {});
  HostFacts facts = GoodHost();
  facts.javas = {{"/usr/lib/jvm/21", 21, "21.0.1", ""}};
  Response now = Fingerprint(facts, {});
  ClearGoneAttributes(before, now);
  EXPECT_EQ(Attribute(now, "driver.jenkins-agent.java.17"), "");
  EXPECT_EQ(Attribute(now, "driver.jenkins-agent.java.21"), "21.0.1");

  Response later = Fingerprint(facts, {});
  ClearGoneAttributes(now, later);
  EXPECT_EQ(Attribute(later, "driver.jenkins-agent.java.17"), "");
  Response back = Fingerprint(GoodHost(), {});
  ClearGoneAttributes(later, back);
  EXPECT_EQ(Attribute(back, "driver.jenkins-agent.java.17"), "17.0.15");
}

}  // namespace
}  // namespace jenkins_agent
