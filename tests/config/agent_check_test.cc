#include "driver/config/agent_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

pb::AgentSpec Complete() {
  pb::AgentSpec agent;
  agent.add_urls("https://c/");
  agent.set_name("linux-1");
  agent.set_secret("5ec2e7");
  agent.set_root_dir("/local/agent");
  return agent;
}

pb::AgentSpec Direct() {
  pb::AgentSpec agent = Complete();
  agent.clear_urls();
  agent.set_direct("c:50000");
  agent.set_instance_identity("MIIB");
  agent.set_jar("/agent.jar");
  return agent;
}

struct Case {
  void (*change)(pb::AgentSpec& agent);
  const char* message;  // null: accepted
};

template <size_t N>
void Expect(const pb::AgentSpec& agent, const Case (&cases)[N]) {
  for (const Case& c : cases) {
    pb::AgentSpec changed = agent;
    c.change(changed);
    SCOPED_TRACE(changed.DebugString());
    if (c.message == nullptr) {
      EXPECT_OK(CheckAgent(changed));
    } else {
      EXPECT_THAT(CheckAgent(changed),
                  StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.message)));
    }
  }
}

TEST(CheckAgentTest, CompleteAgentsAreFine) {
  EXPECT_OK(CheckAgent(Complete()));
  EXPECT_OK(CheckAgent(Direct()));
}

TEST(CheckAgentTest, NamesWhatIsMissingAndWhereToSetIt) {
  Expect(Complete(),
         {
             {[](pb::AgentSpec& a) { a.clear_urls(); },
              "agent.url is missing: set agent { url } or JENKINS_URL in the task's environment"},
             {[](pb::AgentSpec& a) { a.clear_name(); },
              "agent.name is missing: set agent { name } or JENKINS_AGENT_NAME"},
             {[](pb::AgentSpec& a) { a.clear_secret(); },
              "agent.secret is missing: set agent { secret_file } or JENKINS_SECRET"},
             {[](pb::AgentSpec& a) { a.set_direct("c:1"); },
              "agent.direct needs agent.instance_identity or JENKINS_INSTANCE_IDENTITY"},
         });
  Expect(Direct(), {{[](pb::AgentSpec& a) { a.clear_jar(); }, "agent.jar is missing"}});
}

TEST(CheckAgentTest, ErrorsNameThePath) {
  Expect(Complete(),
         {
             {[](pb::AgentSpec& a) { a.set_urls(0, "jenkins"); },
              "agent.url: \"jenkins\" is not an http"},
             {[](pb::AgentSpec& a) { a.add_urls("http://c/ x"); }, "agent.url: \"http://c/ x\""},
             {[](pb::AgentSpec& a) { a.set_name("a/b"); }, "agent.name: \"a/b\" contains '/'"},
             {[](pb::AgentSpec& a) { a.set_name("-x"); }, "agent.name: \"-x\" begins with '-'"},
             {[](pb::AgentSpec& a) { a.set_name("a\nb"); }, "agent.name: "},
             {[](pb::AgentSpec& a) { a.set_tunnel("h"); }, "agent.tunnel: \"h\" is not HOST:PORT"},
             {[](pb::AgentSpec& a) { a.set_ca_file("ca.pem"); },
              "agent.ca_file: \"ca.pem\" is not an absolute"},
             {[](pb::AgentSpec& a) { a.set_root_dir("agent"); },
              "agent.root_dir: \"agent\" is not an absolute"},
             {[](pb::AgentSpec& a) { a.set_root_dir("/local/../x"); }, "agent.root_dir: "},
             {[](pb::AgentSpec& a) { a.set_jar("agent.jar"); },
              "agent.jar: \"agent.jar\" is not an absolute"},
             {[](pb::AgentSpec& a) {
                a.set_web_socket(true);
                a.add_web_socket_headers("a b=c");
              },
              "agent.web_socket_headers: \"a b\": is no name for an HTTP header"},
         });
  Expect(Direct(), {
                       {[](pb::AgentSpec& a) { a.set_direct(":1"); },
                        "agent.direct: \":1\" is not HOST:PORT"},
                       {[](pb::AgentSpec& a) { a.set_instance_identity("?"); },
                        "agent.instance_identity: is not base64"},
                   });
}

TEST(CheckAgentTest, ExtraArgsLeaveTheDriversOptionsAlone) {
  Expect(Complete(),
         {
             {[](pb::AgentSpec& a) {
                for (const char* arg : {"-noReconnectAfter", "1h", "-jar-cache", "/x"}) {
                  a.add_extra_args(arg);
                }
              },
              nullptr},
             {[](pb::AgentSpec& a) { a.add_extra_args("-secret"); },
              "agent.extra_args: contains -secret, which the driver writes; set "
              "agent.secret_file or JENKINS_SECRET in the task's environment instead"},
             {[](pb::AgentSpec& a) { a.add_extra_args("-workDir"); }, "set agent.root_dir instead"},
             {[](pb::AgentSpec& a) { a.add_extra_args(""); }, "contains an empty string"},
         });
}

TEST(CheckAgentTest, ForbiddenCombinations) {
  Expect(Complete(), {
                         {[](pb::AgentSpec& a) {
                            a.set_web_socket(true);
                            a.set_tunnel("t:1");
                          },
                          "agent.web_socket and agent.tunnel are both set"},
                         {[](pb::AgentSpec& a) {
                            a.set_web_socket(true);
                            a.add_urls("http://d/");
                          },
                          "agent.web_socket needs exactly one agent.url; there are 2"},
                         {[](pb::AgentSpec& a) {
                            a.set_web_socket(true);
                            a.add_extra_args("-credentials");
                          },
                          "-credentials"},
                         {[](pb::AgentSpec& a) {
                            a.set_web_socket(true);
                            a.add_extra_args("-noKeepAlive");
                          },
                          "-noKeepAlive"},
                         {[](pb::AgentSpec& a) {
                            a.set_ca_file("/ca");
                            a.add_extra_args("-noCertificateCheck");
                          },
                          "-noCertificateCheck"},
                         {[](pb::AgentSpec& a) { a.add_web_socket_headers("A=b"); },
                          "agent.web_socket_headers need agent.web_socket = true"},
                         {[](pb::AgentSpec& a) { a.set_instance_identity("MIIB"); },
                          "agent.instance_identity is only used with agent.direct"},
                     });
  Expect(Direct(), {
                       {[](pb::AgentSpec& a) { a.set_web_socket(true); },
                        "agent.web_socket and agent.direct are both set"},
                       {[](pb::AgentSpec& a) { a.set_tunnel("t:1"); },
                        "agent.direct and agent.tunnel are both set"},
                       {[](pb::AgentSpec& a) { a.set_ca_file("/ca"); },
                        "agent.direct and agent.ca_file are both set"},
                       {[](pb::AgentSpec& a) {
                          a.clear_jar();  // fetched from the URL
                          a.add_urls("https://c/");
                          a.set_ca_file("/ca");
                        },
                        nullptr},
                   });
}

TEST(CheckAgentTest, NeitherSecretsNorPasswordsAreQuoted) {
  pb::AgentSpec agent = Complete();
  agent.set_secret("two words");
  EXPECT_THAT(CheckAgent(agent),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("agent.secret: "), Not(HasSubstr("two")))));
  agent = Complete();
  agent.set_urls(0, "http://user:hunter2@c/");
  EXPECT_THAT(CheckAgent(agent),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("agent.url: "), Not(HasSubstr("hunter2")))));
}

}  // namespace
}  // namespace jenkins_agent
