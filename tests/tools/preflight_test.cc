#include "driver/tools/preflight.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"
#include "tests/tools/fake_controller.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class PreflightTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(http_, HttpClient::Create("", -1));
    // A port that was free a moment ago: nobody listens there.
    const FakeController closed([](const std::string&, const FakeController::Send&) {});
    closed_port_ = closed.port();
  }
  static FakeController::Handler AgentPort(int port, const std::string& more = "") {
    return [port, more](const std::string&, const FakeController::Send& send) {
      send(FakeController::Answer(
          "200 OK", absl::StrCat("X-Jenkins-JNLP-Port: ", port, "\r\n", more), "topsecret"));
    };
  }
  std::string Describe(const PreflightRequest& request) {
    const WayToController way = DescribeWayToController(*http_, request);
    EXPECT_EQ(way.reached, way.line.find("accepts connections") != std::string::npos ||
                               way.line.find("WebSocket") != std::string::npos)
        << way.line;
    return way.line;
  }

  std::unique_ptr<HttpClient> http_;
  int closed_port_ = 0;
};

TEST_F(PreflightTest, HttpThatFailsIsNamedWithItsStatusLine) {
  const FakeController controller([](const std::string&, const FakeController::Send& send) {
    send(FakeController::Answer("503 Service Unavailable", "", "topsecret"));
  });
  EXPECT_EQ(Describe({.urls = {controller.url()}}), controller.url() + ": 503 Service Unavailable");
  const std::string dead = absl::StrCat("http://127.0.0.1:", closed_port_, "/");
  EXPECT_EQ(
      Describe({.urls = {dead, controller.url()}}),
      absl::StrCat(dead, ": Connection refused; ", controller.url(), ": 503 Service Unavailable"));
}

TEST_F(PreflightTest, AClosedAgentPortIsNamedWithWhatToDo) {
  const FakeController controller(AgentPort(closed_port_));
  EXPECT_EQ(
      Describe({.urls = {controller.url()}}),
      absl::StrCat("the controller answers HTTP 200, but its agent port 127.0.0.1:", closed_port_,
                   " cannot be reached (Connection refused): open the port or set "
                   "agent.tunnel"));
}

TEST_F(PreflightTest, AnOpenPortIsSaidToBeOpen) {
  const FakeController port([](const std::string&, const FakeController::Send&) {});
  const FakeController controller(AgentPort(port.port()));
  EXPECT_THAT(Describe({.urls = {controller.url()}}),
              AllOf(HasSubstr(absl::StrCat("and its agent port 127.0.0.1:", port.port(),
                                           " accepts connections")),
                    Not(HasSubstr("topsecret"))));
  const FakeController elsewhere(AgentPort(closed_port_, "X-Jenkins-JNLP-Host: 127.0.0.2\r\n"));
  EXPECT_THAT(Describe({.urls = {elsewhere.url()}}), HasSubstr("agent port 127.0.0.2:"));
  // A tunnel: the agent was seen to try another port than the advertised one.
  EXPECT_THAT(
      Describe({.urls = {elsewhere.url()}, .agent_port = absl::StrCat("127.0.0.1:", port.port())}),
      HasSubstr(absl::StrCat("and its agent port 127.0.0.1:", port.port(), " accepts")));
}

TEST_F(PreflightTest, ADirectPortIsLookedAtWithoutHttp) {
  EXPECT_THAT(Describe({.agent_port = absl::StrCat("127.0.0.1:", closed_port_)}),
              StartsWith(absl::StrCat("the controller is not asked over HTTP, but its agent port "
                                      "127.0.0.1:",
                                      closed_port_, " cannot be reached (Connection refused)")));
}

TEST_F(PreflightTest, AWebSocketHasNoPortOfItsOwn) {
  const FakeController controller([](const std::string& path, const FakeController::Send& send) {
    EXPECT_EQ(path, "/login");
    send(FakeController::Answer("200 OK", "", ""));
  });
  EXPECT_THAT(Describe({.urls = {controller.url()}, .web_socket = true}),
              StartsWith(controller.url() + " answers HTTP 200"));
}

TEST_F(PreflightTest, HostilePortsAreNotFollowed) {
  const FakeController controller(AgentPort(70000));
  EXPECT_THAT(Describe({.urls = {controller.url()}}), HasSubstr(":70000 is no TCP port"));
}

}  // namespace
}  // namespace jenkins_agent
