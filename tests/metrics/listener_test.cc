// The listener program as the plugin starts it, with this test in the plugin's place.
#include "driver/metrics/listener.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/subprocess.h"
#include "driver/metrics/metrics.h"
#include "tests/support/requires.h"
#include "tests/support/scrape.h"
#include "tests/support/status_matchers.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

class ListenerTest : public testing::Test {
 protected:
  void SetUp() override {
    REQUIRES_ROOT();
    port_ = FreePort();
  }
  void TearDown() override {
    if (process_.pid < 0) return;
    ::kill(process_.pid, SIGKILL);
    EXPECT_OK(Wait(process_));
  }

  void Launch() {
    ASSERT_OK_AND_ASSIGN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
    StartOptions options;
    options.stdin_fd = sockets.second.get();
    ASSERT_OK_AND_ASSIGN(process_,
                         Start({EXPORTER_PROGRAM, absl::StrCat("127.0.0.1:", port_)}, options));
    plugin_ = std::move(sockets.first);
  }
  pb::ListenerNews Hear() {
    pollfd news = {plugin_.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&news, 1, 30'000), 1);
    const absl::StatusOr<Packet> packet = ReceivePacket(plugin_.get());
    pb::ListenerNews heard;
    EXPECT_TRUE(packet.ok() && heard.ParseFromString(packet->data)) << packet.status();
    return heard;
  }
  // Answers one question.
  std::thread Answering(pb::MetricsSnapshot snapshot) {
    return std::thread([this, snapshot]() mutable {
      snapshot.set_scrape(Hear().scrape());
      EXPECT_OK(SendPacket(plugin_.get(), snapshot.SerializeAsString()));
    });
  }

  int port_ = 0;
  Fd plugin_;
  Subprocess process_;
};

TEST_F(ListenerTest, ServesWhatThePluginAnswers) {
  Launch();
  ASSERT_TRUE(Hear().listening());
  Metrics metrics;
  metrics.Count(Metric::kRestarts, "hung");
  metrics.Observe(Metric::kSandboxStart, "root", 0.0009);
  std::thread plugin = Answering(metrics.Snapshot());
  const std::string page = Scrape(port_);
  plugin.join();
  EXPECT_THAT(page, HasSubstr("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(page, HasSubstr("# TYPE jenkins_agent_restarts_total counter\n"));
  EXPECT_THAT(page, HasSubstr("\njenkins_agent_restarts_total{reason=\"hung\"} 1\n"));
  EXPECT_THAT(page, HasSubstr("\njenkins_agent_restarts_total{reason=\"died\"} 0\n"));
  EXPECT_THAT(page, HasSubstr("\njenkins_agent_up 1\n"));
  EXPECT_THAT(page, HasSubstr("\njenkins_agent_sandbox_start_seconds_count{phase=\"root\"} 1\n"));
  EXPECT_THAT(page, HasSubstr("_bucket{phase=\"root\",le=\"0.0005\"} 0\n"));
  EXPECT_THAT(page, HasSubstr("_bucket{phase=\"root\",le=\"0.001\"} 1\n"));
  EXPECT_THAT(page, HasSubstr("_bucket{phase=\"root\",le=\"+Inf\"} 1\n"));
}

TEST_F(ListenerTest, NothingButMetricsIsServed) {
  Launch();
  ASSERT_TRUE(Hear().listening());
  EXPECT_THAT(Get(port_, "/"), HasSubstr("HTTP/1.1 404"));
  EXPECT_THAT(Get(port_, "/../../etc/passwd"), Not(HasSubstr("root:")));
}

TEST_F(ListenerTest, IsNobodyWithoutCapabilities) {
  Launch();
  ASSERT_TRUE(Hear().listening());
  ASSERT_OK_AND_ASSIGN(const std::string status,
                       ReadFile(absl::StrCat("/proc/", process_.pid, "/status")));
  EXPECT_THAT(status,
              AllOf(HasSubstr("Uid:\t65534\t65534\t65534\t65534\n"),
                    HasSubstr("Gid:\t65534\t65534\t65534\t65534\n"), HasSubstr("Groups:\t \n"),
                    HasSubstr("CapPrm:\t0000000000000000\n"),
                    HasSubstr("CapEff:\t0000000000000000\n"), HasSubstr("NoNewPrivs:\t1\n")));
}

TEST_F(ListenerTest, APluginThatDoesNotAnswerIsNotUp) {
  Launch();
  ASSERT_TRUE(Hear().listening());
  const std::string page = Scrape(port_);
  EXPECT_THAT(page, HasSubstr("\njenkins_agent_up 0\n"));
  EXPECT_THAT(page, Not(HasSubstr("jenkins_agent_restarts_total")));
  // The late answer is not taken for the next question's.
  Metrics metrics;
  pb::MetricsSnapshot late = metrics.Snapshot();
  late.set_scrape(Hear().scrape());
  ASSERT_OK(SendPacket(plugin_.get(), late.SerializeAsString()));
  metrics.Count(Metric::kThreadCrossings);
  std::thread plugin = Answering(metrics.Snapshot());
  EXPECT_THAT(Scrape(port_), HasSubstr("\njenkins_agent_thread_limit_crossings_total 1\n"));
  plugin.join();
}

TEST_F(ListenerTest, APortThatIsTakenIsToldInWords) {
  Fd taken;
  port_ = FreePort(&taken);
  Launch();
  EXPECT_EQ(Hear().error(), "bind: Address already in use");
  ASSERT_OK_AND_ASSIGN(const ExitStatus exit, Wait(process_));
  process_.pid = -1;
  EXPECT_EQ(exit.exit_code, 1);
}

TEST_F(ListenerTest, EndsWithThePlugin) {
  Launch();
  ASSERT_TRUE(Hear().listening());
  plugin_.Reset();
  pollfd end = {process_.pidfd.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&end, 1, 30'000), 1);
}

}  // namespace
}  // namespace jenkins_agent
