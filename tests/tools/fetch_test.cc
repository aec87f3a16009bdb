#include "driver/tools/fetch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <utility>

#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "tests/support/status_matchers.h"
#include "tests/tools/fake_controller.h"

namespace jenkins_agent {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kPortHeader[] = "X-Hudson-JNLP-Port: 50000\r\n";

class FetchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(cancel_, MakePipe());
    ASSERT_OK_AND_ASSIGN(http_, HttpClient::Create("", cancel_.read.get()));
    jar_.Reset(::memfd_create("jar", MFD_CLOEXEC));
  }
  absl::StatusOr<std::string> Discover(std::vector<std::string> urls, bool web_socket = false) {
    Discovery discovery(
        *http_, {std::move(urls), "linux-1", web_socket},
        [this](const std::string& reason) {
          reasons_.push_back(reason);
          if (cancel_when_waiting_) cancel_.write.Reset();
        },
        milliseconds(1));
    return discovery.WaitForController();
  }
  absl::StatusOr<FetchedJar> Fetch(const std::string& url,
                                   const std::map<std::string, JarValidators>& known = {}) {
    return FetchAgentJar(*http_, url, jar_.get(), known,
                         [this](const std::string& jar_url) { tried_.push_back(jar_url); });
  }
  std::string JarContent() {
    return ReadFile(absl::StrCat("/proc/self/fd/", jar_.get()), 1 << 20).value();
  }

  Pipe cancel_;
  std::unique_ptr<HttpClient> http_;
  Fd jar_;
  bool cancel_when_waiting_ = false;
  std::vector<std::string> reasons_;
  std::vector<std::string> tried_;
};

TEST_F(FetchTest, WaitsUntilTheControllerHasStarted) {
  std::atomic<int> asked = 0;
  const FakeController controller([&](const std::string& path, const FakeController::Send& send) {
    EXPECT_EQ(path, "/tcpSlaveAgentListener/");
    send(++asked < 4 ? FakeController::Answer("503 Service Unavailable", "", "<html>secret body")
                     : FakeController::Answer("200 OK", kPortHeader, "x"));
  });
  ASSERT_OK_AND_ASSIGN(const std::string url, Discover({controller.url()}));
  EXPECT_EQ(url, controller.url());
  EXPECT_THAT(reasons_, ElementsAre(controller.url() + ": 503 Service Unavailable"));
  EXPECT_THAT(controller.requests().front(), HasSubstr("\r\nNode-Name: linux-1\r\n"));
}

// They are the plugin's, if anybody's: a job sees the network as it is.
TEST_F(FetchTest, ProxiesOfTheEnvironmentAreNotUsed) {
  for (const char* name : {"http_proxy", "HTTP_PROXY", "all_proxy"}) {
    ::setenv(name, "http://127.0.0.1:9/", 1);
  }
  const FakeController controller([&](const std::string&, const FakeController::Send& send) {
    send(FakeController::Answer("200 OK", kPortHeader, "x"));
  });
  EXPECT_OK(Discover({controller.url()}));
  for (const char* name : {"http_proxy", "HTTP_PROXY", "all_proxy"}) ::unsetenv(name);
}

TEST_F(FetchTest, TakesTheFirstUrlThatIsReady) {
  const FakeController controller([&](const std::string&, const FakeController::Send& send) {
    send(FakeController::Answer("200 OK", "X-Jenkins-JNLP-Port: 1\r\n", ""));
  });
  ASSERT_OK_AND_ASSIGN(const std::string url, Discover({"http://127.0.0.1:9/", controller.url()}));
  EXPECT_EQ(url, controller.url());
}

TEST_F(FetchTest, SaysWhyItWaits) {
  const struct {
    std::string answer;
    const char* reason;
  } cases[] = {
      {FakeController::Answer("404 Not Found", "", ""), "inbound agents switched on?"},
      {FakeController::Answer("200 OK", "", "hello"), "names no agent port"},
      {FakeController::Answer("403 For\x01\x80"
                              "den",
                              "", ""),
       "403 For??den"},
      {FakeController::Answer("302 Found", "Location: http://evil.example/x\r\n", ""),
       "redirects to another host (http://evil.example/x)"},
      {FakeController::Answer("302 Found", "Location: /again\r\n", ""), "redirects too often"},
      {"HTTP/1.1 200 OK\r\n" + std::string(200 << 10, 'h') + ": x\r\n\r\n", ": "},
      {"not http at all\r\n\r\n", ": "},
      {"", ": "},
  };
  for (const auto& c : cases) {
    SetUp();
    reasons_.clear();
    cancel_when_waiting_ = true;
    const FakeController controller(
        [&](const std::string&, const FakeController::Send& send) { send(c.answer); });
    EXPECT_THAT(Discover({controller.url()}), StatusIs(absl::StatusCode::kCancelled, "cancelled"));
    ASSERT_EQ(reasons_.size(), 1u) << c.reason;
    EXPECT_THAT(reasons_[0], AllOf(HasSubstr(c.reason), Not(HasSubstr("hello"))));
  }
}

TEST_F(FetchTest, RefusedConnectionIsWaitedForWithoutThePassword) {
  cancel_when_waiting_ = true;
  EXPECT_THAT(Discover({"http://user:topsecret@127.0.0.1:9/"}),
              StatusIs(absl::StatusCode::kCancelled, "cancelled"));
  EXPECT_THAT(reasons_, ElementsAre("http://127.0.0.1:9/: Connection refused"));
}

TEST_F(FetchTest, WhatIsNoHttpUrlIsNotWaitedFor) {
  cancel_when_waiting_ = true;
  for (const char* url : {"http://a b/", "http://[x/", "httpx://c/"}) {
    EXPECT_THAT(Discover({url}), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("is not an http or https url")))
        << url;
  }
}

TEST_F(FetchTest, CancelEndsASilentServersTransfer) {
  const FakeController controller([&](const std::string&, const FakeController::Send&) {
    cancel_.write.Reset();
    char c;
    (void)!::read(cancel_.read.get(), &c, 1);  // at its end: answers nothing, keeps the connection
  });
  EXPECT_THAT(Discover({controller.url()}), StatusIs(absl::StatusCode::kCancelled, "cancelled"));
}

TEST_F(FetchTest, WebSocketNeedsNoAgentPort) {
  const FakeController controller([&](const std::string& path, const FakeController::Send& send) {
    EXPECT_EQ(path, "/login");
    send(FakeController::Answer("200 OK", "", ""));
  });
  EXPECT_OK(Discover({controller.url()}, /*web_socket=*/true));
}

TEST_F(FetchTest, FallsBackToOlderJarNames) {
  const FakeController controller([&](const std::string& path, const FakeController::Send& send) {
    send(path == "/ctx/jnlpJars/slave.jar"
             ? FakeController::Answer("200 OK", "", "the jar")
             : FakeController::Answer("404 Not Found", "", "a long page about nothing"));
  });
  const std::string url = controller.url() + "ctx";
  ASSERT_OK(Fetch(url));
  EXPECT_EQ(JarContent(), "the jar");
  EXPECT_THAT(tried_, ElementsAre(url + "/jnlpJars/agent.jar", url + "/jnlpJars/remoting.jar",
                                  url + "/jnlpJars/slave.jar"));
}

TEST_F(FetchTest, AnUnchangedJarIsNotTransferred) {
  const FakeController controller([&](const std::string&, const FakeController::Send& send) {
    send("HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n");
  });
  const std::string jar_url = controller.url() + "jnlpJars/agent.jar";
  ASSERT_OK_AND_ASSIGN(
      const FetchedJar jar,
      Fetch(controller.url(), {{jar_url, {"\"v1\"", "Sat, 21 Nov 2026 00:00:00 GMT"}}}));
  EXPECT_TRUE(jar.unchanged);
  EXPECT_EQ(jar.url, jar_url);
  EXPECT_EQ(JarContent(), "");
  EXPECT_THAT(controller.requests().front(),
              AllOf(HasSubstr("\r\nIf-None-Match: \"v1\"\r\n"),
                    HasSubstr("\r\nIf-Modified-Since: Sat, 21 Nov 2026 00:00:00 GMT\r\n")));
  // Nobody asked this one with a condition.
  EXPECT_THAT(Fetch(controller.url()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("304")));
}

TEST_F(FetchTest, TheNameThatIsKnownIsAskedForFirst) {
  const FakeController controller([&](const std::string& path, const FakeController::Send& send) {
    send(path == "/jnlpJars/agent.jar" ? FakeController::Answer("200 OK", "", "the new jar")
                                       : FakeController::Answer("404 Not Found", "", ""));
  });
  const std::string known = controller.url() + "jnlpJars/slave.jar";
  ASSERT_OK(Fetch(controller.url(), {{known, {"\"v1\"", ""}}}));
  EXPECT_EQ(JarContent(), "the new jar");
  EXPECT_THAT(tried_, ElementsAre(known, controller.url() + "jnlpJars/agent.jar"));
}

TEST_F(FetchTest, ValidatorsAreKeptUnlessTheyCouldHarm) {
  const FakeController controller([&](const std::string& path, const FakeController::Send& send) {
    const std::string tag = path == "/a/jnlpJars/agent.jar" ? "W/\"1\"" : std::string(5000, 'x');
    send(FakeController::Answer("200 OK", "ETag: " + tag + "\r\nLast-Modified: \x01\r\n", "jar"));
  });
  ASSERT_OK_AND_ASSIGN(const FetchedJar sane, Fetch(controller.url() + "a"));
  EXPECT_EQ(sane.validators.etag, "W/\"1\"");
  EXPECT_EQ(sane.validators.last_modified, "");
  ASSERT_OK_AND_ASSIGN(const FetchedJar odd, Fetch(controller.url() + "b"));
  EXPECT_TRUE(odd.validators.empty());
}

TEST_F(FetchTest, FollowsARedirectWithinTheHost) {
  const FakeController controller([&](const std::string& path, const FakeController::Send& send) {
    send(path == "/new/agent.jar"
             ? FakeController::Answer("200 OK", "", "moved jar")
             : FakeController::Answer("302 Found", "Location: /new/agent.jar\r\n", ""));
  });
  ASSERT_OK(Fetch(controller.url()));
  EXPECT_EQ(JarContent(), "moved jar");
}

TEST_F(FetchTest, NeverFollowsToAnotherHost) {
  const FakeController other([&](const std::string&, const FakeController::Send& send) {
    send(FakeController::Answer("200 OK", "", "wrong"));
  });
  const std::string target = absl::StrCat("http://localhost:", other.port(), "/x.jar");
  const FakeController controller([&](const std::string&, const FakeController::Send& send) {
    send(FakeController::Answer("302 Found", "Location: " + target + "\r\n", ""));
  });
  EXPECT_THAT(Fetch(controller.url()),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("another host")));
  EXPECT_TRUE(other.requests().empty());
}

TEST_F(FetchTest, EndlessBodyIsCutOff) {
  const std::string block(1 << 20, 'x');
  const FakeController controller([&](const std::string&, const FakeController::Send& send) {
    send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    while (send(block)) {
    }
  });
  EXPECT_THAT(Fetch(controller.url()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("longer than 64 MiB")));
}

TEST_F(FetchTest, ShortBodyAndServerErrorsAreWorthAnotherTry) {
  const FakeController half([&](const std::string&, const FakeController::Send& send) {
    send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
  });
  EXPECT_TRUE(absl::IsUnavailable(Fetch(half.url()).status()));
  const FakeController busy([&](const std::string&, const FakeController::Send& send) {
    send(FakeController::Answer("502 Bad Gateway", "", "body"));
  });
  EXPECT_THAT(Fetch(busy.url()),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr("502 Bad Gateway"), Not(HasSubstr("body")))));
  const FakeController closed([&](const std::string&, const FakeController::Send& send) {
    send(FakeController::Answer("403 Forbidden", "", "body"));
  });
  EXPECT_THAT(Fetch(closed.url()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("403 Forbidden")));
}

}  // namespace
}  // namespace jenkins_agent
