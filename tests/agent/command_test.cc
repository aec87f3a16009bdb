#include "driver/agent/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdio.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

pb::JavaHome Java(const std::string& path, uint32_t feature) {
  pb::JavaHome java;
  java.set_path(path);
  java.set_feature(feature);
  return java;
}

pb::AgentSpec Agent() {
  pb::AgentSpec agent;
  agent.add_urls("http://c:8080/");
  agent.set_name("linux 1");
  agent.set_secret("5ec2e7");
  agent.set_root_dir("/local/agent");
  agent.add_jvm_options("-Xmx64m");
  *agent.add_java_homes() = Java("/jdk25", 25);
  *agent.add_java_homes() = Java("/jdk17", 17);
  return agent;
}

pb::JarInfo Jar(pb::LauncherGeneration generation) {
  pb::JarInfo jar;
  jar.set_path("/run/jenkins-agent/agent.jar");
  jar.set_generation(generation);
  jar.set_min_java(generation == pb::LAUNCHER_HUDSON ? 6 : 17);
  return jar;
}

TEST(CommandTest, OldAgentGetsPositionalSecretAndNameOnAnOldEnoughJdk) {
  pb::AgentSpec agent = Agent();
  agent.set_tunnel("gate:50000");
  ASSERT_OK_AND_ASSIGN(const AgentCommand command,
                       BuildAgentCommand(agent, Jar(pb::LAUNCHER_HUDSON)));
  EXPECT_THAT(command.argv, ElementsAre("/jdk17/bin/java", "@/run/jenkins-agent/args"));
  EXPECT_EQ(command.java_home, "/jdk17");
  EXPECT_EQ(command.arguments_file,
            "\"-Xmx64m\"\n\"-XX:-UsePerfData\"\n\"-cp\"\n\"/run/jenkins-agent/agent.jar\"\n"
            "\"hudson.remoting.jnlp.Main\"\n\"-headless\"\n\"-url\"\n\"http://c:8080/\"\n"
            "\"-tunnel\"\n\"gate:50000\"\n\"5ec2e7\"\n\"linux 1\"\n");
}

TEST(CommandTest, CurrentAgentGetsOptionsOnTheNewestJdk) {
  pb::AgentSpec agent = Agent();
  agent.set_ca_file("/etc/ca.pem");
  agent.set_web_socket(true);
  agent.add_web_socket_headers("X-A=b");
  agent.add_extra_args("-noKeepAlive");
  agent.add_jvm_options("-XX:+UsePerfData");
  ASSERT_OK_AND_ASSIGN(const AgentCommand command,
                       BuildAgentCommand(agent, Jar(pb::LAUNCHER_JENKINS)));
  EXPECT_EQ(command.argv[0], "/jdk25/bin/java");
  EXPECT_EQ(command.arguments_file,
            "\"-Xmx64m\"\n\"-XX:+UsePerfData\"\n\"-jar\"\n\"/run/jenkins-agent/agent.jar\"\n"
            "\"-url\"\n\"http://c:8080/\"\n\"-secret\"\n\"5ec2e7\"\n\"-name\"\n\"linux 1\"\n"
            "\"-webSocket\"\n\"-webSocketHeader\"\n\"X-A=b\"\n\"-cert=@/etc/ca.pem\"\n"
            "\"-workDir\"\n\"/local/agent\"\n\"-noKeepAlive\"\n");
}

TEST(CommandTest, DirectLeavesTheUrlOut) {
  pb::AgentSpec agent = Agent();
  agent.set_direct("c:50000");
  agent.set_instance_identity("MIIB");
  ASSERT_OK_AND_ASSIGN(const AgentCommand command,
                       BuildAgentCommand(agent, Jar(pb::LAUNCHER_JENKINS)));
  EXPECT_THAT(command.arguments_file,
              AllOf(HasSubstr("\"-direct\"\n\"c:50000\"\n\"-instanceIdentity\"\n\"MIIB\"\n"),
                    Not(HasSubstr("-url"))));
}

TEST(CommandTest, OldAgentRefusesOptionsItDoesNotHave) {
  pb::AgentSpec agent = Agent();
  agent.set_web_socket(true);
  EXPECT_THAT(BuildAgentCommand(agent, Jar(pb::LAUNCHER_HUDSON)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("agent.web_socket")));
  agent = Agent();
  agent.set_ca_file("/ca.pem");
  EXPECT_THAT(BuildAgentCommand(agent, Jar(pb::LAUNCHER_HUDSON)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("agent.ca_file")));
  agent = Agent();
  agent.set_secret("@/secrets/s");
  EXPECT_THAT(BuildAgentCommand(agent, Jar(pb::LAUNCHER_HUDSON)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("@file")));
}

TEST(CommandTest, NamesTheJdksThatDoNotFit) {
  EXPECT_THAT(ChooseJava({Java("/jdk25", 25)}, pb::LAUNCHER_HUDSON, 6),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("older than 24"), HasSubstr("25 (/jdk25)"))));
  EXPECT_THAT(ChooseJava({Java("/jdk11", 11)}, pb::LAUNCHER_JENKINS, 17),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("Java 17 or newer")));
  EXPECT_THAT(ChooseJava({}, pb::LAUNCHER_JENKINS, 17),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("none was found")));
  EXPECT_OK(ChooseJava({Java("/image/jre", 0)}, pb::LAUNCHER_HUDSON, 6));
}

TEST(CommandTest, UnknownJarIsNoAgent) {
  EXPECT_THAT(BuildAgentCommand(Agent(), Jar(pb::LAUNCHER_UNKNOWN)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is not a Jenkins")));
}

// The JDK's launcher is the judge of the quoting.
TEST(CommandTest, JavaReadsBackWhatWasQuoted) {
  const std::string java = "/usr/lib/jvm/java-17-openjdk-amd64/bin/java";
  REQUIRES_PATH(java);
  const TempDir dir;
  const std::string program = dir.path() + "/Print.java", args = dir.path() + "/args";
  std::ofstream(program) << "public class Print { public static void main(String[] a) {"
                            " for (String s : a) System.out.print(s + \"\\u0001\"); } }";
  const std::vector<std::string> words = {"plain", "two words", "tab\there",  "line\nbreak",
                                          "cr\r",  "# no",      "back\\sl\\", "quo\"te'",
                                          "",      "@file",     "*",          "end\\"};
  {
    std::ofstream file(args);
    file << QuoteArgument("-XX:TieredStopAtLevel=1") << "\n" << QuoteArgument(program) << "\n";
    for (const std::string& word : words) file << QuoteArgument(word) << "\n";
  }
  FILE* output = ::popen(absl::StrCat(java, " @", args).c_str(), "r");
  ASSERT_NE(output, nullptr);
  std::string got(4096, '\0');
  got.resize(::fread(got.data(), 1, got.size(), output));
  EXPECT_EQ(::pclose(output), 0);
  std::string want;
  for (const std::string& word : words) absl::StrAppend(&want, word, "\x01");
  EXPECT_EQ(got, want);
}

TEST(AgentOfArguments, FindsWhatSupervisionNeeds) {
  pb::AgentSpec agent = AgentOfArguments(
      {"-url", "http://c:8080/", "-secret", "5ec2e7", "-name", "linux-1", "-webSocket"});
  EXPECT_THAT(agent.urls(), ElementsAre("http://c:8080/"));
  EXPECT_EQ(agent.name(), "linux-1");
  EXPECT_TRUE(agent.web_socket());
  EXPECT_FALSE(agent.one_shot());
  EXPECT_EQ(agent.secret(), "");
  agent = AgentOfArguments({"-noreconnect", "-jnlpUrl",
                            "https://c/jenkins/computer/linux-1/jenkins-agent.jnlp",
                            "-jnlpCredentials", "user:token"});
  EXPECT_THAT(agent.urls(), ElementsAre("https://c/jenkins/"));
  EXPECT_TRUE(agent.one_shot());
  agent = AgentOfArguments(
      {"-headless", "-url", "http://c/", "-tunnel", ":50000", "5ec2e7", "linux-2"});
  EXPECT_EQ(agent.name(), "linux-2");
}

TEST(AgentOfArguments, TakesNothingThatIsNotThere) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>(), {"-url"}, {"-name"}, {"-url", "@file"}, {"tool"}}) {
    const pb::AgentSpec agent = AgentOfArguments(arguments);
    EXPECT_THAT(agent.urls(), testing::IsEmpty());
    EXPECT_EQ(agent.name(), "");
  }
}

}  // namespace
}  // namespace jenkins_agent
