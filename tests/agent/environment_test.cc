#include "driver/agent/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Environment = std::map<std::string, std::string>;

pb::AgentSpec Complete() {
  pb::AgentSpec agent;
  agent.add_urls("https://c/");
  agent.set_name("linux-1");
  agent.set_secret("5ec2e7");
  return agent;
}

TEST(EnvironmentTest, TheImagesNamesAloneDescribeAnAgent) {
  Environment env = {{"JENKINS_URL", "http://c/"},
                     {"JENKINS_AGENT_NAME", "a"},
                     {"JENKINS_SECRET", "5ec2e7\n"},
                     {"JENKINS_TUNNEL", "t:1"},
                     {"JENKINS_AGENT_WORKDIR", "/work"},
                     {"JENKINS_WEB_SOCKET", "1"},
                     {"PATH", "/bin"}};
  pb::AgentSpec agent;
  ASSERT_OK(MergeEnvironment(env, agent));
  EXPECT_EQ(agent.urls(0), "http://c/");
  EXPECT_EQ(agent.name(), "a");
  EXPECT_EQ(agent.secret(), "5ec2e7");
  EXPECT_EQ(agent.tunnel(), "t:1");
  EXPECT_EQ(agent.root_dir(), "/work");
  EXPECT_FALSE(agent.web_socket()) << "only the literal true counts";
  EXPECT_EQ(env.count("JENKINS_SECRET"), 0u);
  EXPECT_EQ(env.at("PATH"), "/bin");
}

TEST(EnvironmentTest, TheJobWinsAndTheSecretIsErasedAnyway) {
  Environment env = {{"JENKINS_URL", "http://env/"},
                     {"JENKINS_NAME", "env"},
                     {"JENKINS_SECRET", "env"},
                     {"REMOTING_OPTS", "-secret other"}};
  pb::AgentSpec agent = Complete();
  ASSERT_OK(MergeEnvironment(env, agent));
  EXPECT_EQ(agent.SerializeAsString(), Complete().SerializeAsString());
  EXPECT_EQ(env.size(), 2u);
}

TEST(EnvironmentTest, JenkinsNameOverridesJenkinsAgentName) {
  Environment env = {{"JENKINS_NAME", "n"}, {"JENKINS_AGENT_NAME", "a"}};
  pb::AgentSpec agent;
  ASSERT_OK(MergeEnvironment(env, agent));
  EXPECT_EQ(agent.name(), "n");
}

TEST(EnvironmentTest, SecretFileReferenceIsPassedOn) {
  Environment env = {{"JENKINS_SECRET", "@/secrets/agent"}};
  pb::AgentSpec agent;
  ASSERT_OK(MergeEnvironment(env, agent));
  EXPECT_EQ(agent.secret(), "@/secrets/agent");
}

TEST(EnvironmentTest, RemotingOptsAreSplitAsAShellWould) {
  Environment env = {{"REMOTING_OPTS",
                      "-url http://c/ -secret 5ec2e7 -name 'my agent' -webSocket "
                      "-webSocketHeader \"A=\\\"b c\\\"\" -noKeepAlive -agentLog /x\\ y ''"}};
  pb::AgentSpec agent;
  ASSERT_OK(MergeEnvironment(env, agent));
  EXPECT_EQ(agent.urls(0), "http://c/");
  EXPECT_EQ(agent.name(), "my agent");
  EXPECT_EQ(agent.secret(), "5ec2e7");
  EXPECT_TRUE(agent.web_socket());
  EXPECT_EQ(agent.web_socket_headers(0), "A=\"b c\"");
  EXPECT_THAT(agent.extra_args(), ElementsAre("-noKeepAlive", "-agentLog", "/x y", ""));
  EXPECT_TRUE(env.empty());
}

TEST(EnvironmentTest, BrokenRemotingOptsAreNamedAndErasedNotQuoted) {
  for (const char* text : {"-secret 'topsecret", "-name a -secret"}) {
    Environment env = {{"REMOTING_OPTS", text}};
    pb::AgentSpec agent;
    EXPECT_THAT(MergeEnvironment(env, agent),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("REMOTING_OPTS"), Not(HasSubstr("topsecret")))));
    EXPECT_TRUE(env.empty());
  }
}

TEST(EnvironmentTest, JvmOptionsAreSplitAtWhiteSpace) {
  EXPECT_THAT(JvmOptionsFromEnvironment(
                  {{"JENKINS_JAVA_OPTS", " -Xmx1g  -Da=b\n"}, {"JAVA_OPTS", "-Xmx2g"}}),
              ElementsAre("-Xmx1g", "-Da=b"));
  EXPECT_THAT(JvmOptionsFromEnvironment({{"JAVA_OPTS", "-Xmx2g"}}), ElementsAre("-Xmx2g"));
  EXPECT_THAT(JvmOptionsFromEnvironment({}), ElementsAre());
}

}  // namespace
}  // namespace jenkins_agent
