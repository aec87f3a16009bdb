#include "driver/config/agent_block.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

void ExpectRefused(const absl::Status& status, const std::string& message) {
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
}

TEST(ValidateAgentTest, AnEmptyBlockIsFine) { EXPECT_OK(ValidateAgent(AgentBlock{})); }

TEST(ValidateAgentTest, ErrorsNameThePath) {
  ExpectRefused(ValidateAgent({.url = "jenkins"}), "agent.url: \"jenkins\" is not an http");
  ExpectRefused(ValidateAgent({.name = "a/b"}), "agent.name: \"a/b\" contains '/'");
  ExpectRefused(ValidateAgent({.secret_file = "secrets/x"}),
                "agent.secret_file: \"secrets/x\" is not an absolute path");
  ExpectRefused(ValidateAgent({.tunnel = "h"}), "agent.tunnel: \"h\" is not HOST:PORT");
  ExpectRefused(ValidateAgent({.direct = ":1"}), "agent.direct: \":1\" is not HOST:PORT");
  ExpectRefused(ValidateAgent({.instance_identity = "?"}),
                "agent.instance_identity: is not base64");
  ExpectRefused(ValidateAgent({.ca_file = "ca.pem"}),
                "agent.ca_file: \"ca.pem\" is not an absolute");
  ExpectRefused(ValidateAgent({.root_dir = "agent"}),
                "agent.root_dir: \"agent\" is not an absolute");
  ExpectRefused(ValidateAgent({.root_dir = ""}), "agent.root_dir: \"\" is not an absolute path");
  ExpectRefused(ValidateAgent({.jar = "agent.jar"}),
                "agent.jar: neither \"auto\" nor the path of an agent.jar: \"agent.jar\" is not");
  ExpectRefused(ValidateAgent({.web_socket_headers = {{"a b", "c"}}}),
                "agent.web_socket_headers: \"a b\": is no name for an HTTP header");
}

TEST(ValidateAgentTest, ExtraArgsLeaveTheDriversOptionsAlone) {
  EXPECT_OK(ValidateAgent({.extra_args = {"-noReconnectAfter", "1h", "-jar-cache", "/x"}}));
  ExpectRefused(
      ValidateAgent({.extra_args = {"-secret", "hunter2"}}),
      "agent.extra_args: contains -secret, which the driver writes; set agent.secret_file "
      "or JENKINS_SECRET in the task's environment instead");
  ExpectRefused(ValidateAgent({.extra_args = {"-workDir", "/x"}}), "set agent.root_dir instead");
  ExpectRefused(ValidateAgent({.extra_args = {""}}), "contains an empty string");
}

TEST(ValidateAgentTest, ForbiddenCombinations) {
  const std::pair<AgentBlock, const char*> cases[] = {
      {{.web_socket = true, .direct = "h:1"},
       "agent.web_socket and agent.direct are both set; a WebSocket goes to agent.url"},
      {{.tunnel = "h:1", .web_socket = true}, "agent.web_socket and agent.tunnel are both set"},
      {{.url = "http://h", .direct = "h:1"}, "agent.direct and agent.url are both set"},
      {{.tunnel = "h:1", .direct = "h:1"}, "agent.direct and agent.tunnel are both set"},
      {{.direct = "h:1", .ca_file = "/ca"}, "agent.direct and agent.ca_file are both set"},
      {{.ca_file = "/ca", .extra_args = {"-noCertificateCheck"}}, "-noCertificateCheck"},
      {{.web_socket = true, .extra_args = {"-credentials", "a:b"}}, "-credentials"},
      {{.web_socket = true, .extra_args = {"-noKeepAlive"}}, "-noKeepAlive"},
      {{.web_socket = false, .web_socket_headers = {{"a", "b"}}},
       "agent.web_socket_headers are set and agent.web_socket is false"},
  };
  for (const auto& [agent, message] : cases) ExpectRefused(ValidateAgent(agent), message);
}

TEST(ValidateAgentTest, WhatTheEnvironmentMayStillAddIsNoError) {
  EXPECT_OK(ValidateAgent({.direct = "h:1"}));
  EXPECT_OK(ValidateAgent({.instance_identity = "MIIB"}));
  EXPECT_OK(ValidateAgent({.web_socket_headers = {{"a", "b"}}}));
  EXPECT_OK(ValidateAgent({.tunnel = "h:1", .web_socket = false}));
}

TEST(ValidateMergedAgentTest, CompleteBlocksAreFine) {
  EXPECT_OK(ValidateMergedAgent({.url = "http://h", .name = "a"}));
  EXPECT_OK(ValidateMergedAgent(
      {.url = "http://h", .name = "a", .web_socket = true, .web_socket_headers = {{"a", "b"}}}));
  EXPECT_OK(ValidateMergedAgent(
      {.name = "a", .direct = "h:1", .instance_identity = "MIIB", .jar = "/agent.jar"}));
}

TEST(ValidateMergedAgentTest, NamesWhatIsMissing) {
  ExpectRefused(ValidateMergedAgent({.name = "a"}),
                "agent.url: not set; set it or JENKINS_URL in the task's environment");
  ExpectRefused(ValidateMergedAgent({.url = "http://h"}),
                "agent.name: not set; set it or JENKINS_AGENT_NAME in the task's environment");
  ExpectRefused(ValidateMergedAgent({.name = "a", .direct = "h:1", .jar = "/a.jar"}),
                "agent.direct needs agent.instance_identity");
  ExpectRefused(ValidateMergedAgent({.url = "http://h", .name = "a", .instance_identity = "MIIB"}),
                "agent.instance_identity is only used with agent.direct");
  ExpectRefused(ValidateMergedAgent({.name = "a", .direct = "h:1", .instance_identity = "MIIB"}),
                "agent.jar: \"auto\" fetches the jar from agent.url");
  ExpectRefused(
      ValidateMergedAgent({.url = "http://h", .name = "a", .web_socket_headers = {{"a", "b"}}}),
      "agent.web_socket_headers need agent.web_socket = true");
}

TEST(ValidateMergedAgentTest, ChecksWhatCameFromTheEnvironment) {
  ExpectRefused(ValidateMergedAgent({.url = "jenkins", .name = "a"}), "agent.url: \"jenkins\"");
}

}  // namespace
}  // namespace jenkins_agent
