// The plugin's metrics, as Prometheus sees them.
#include <signal.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "tests/contract/task_test.h"
#include "tests/support/scrape.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class MetricsContract : public TaskTest {
 protected:
  void SetUp() override {
    TaskTest::SetUp();
    if (IsSkipped()) return;
    port_ = FreePort();
    RelaunchWithMetrics();
  }
  void RelaunchWithMetrics() {
    ASSERT_OK(host_.Quit());
    ASSERT_OK(host_.Launch({.metrics_listen = absl::StrCat(port_)}));
  }
  // What is served once this plugin's listener is there: the port answers a moment before the page
  // does, and for a moment after its plugin is gone.
  std::string Page() {
    std::string page;
    EXPECT_TRUE(WaitFor([&] {
      page = Scrape(port_);
      return absl::StrContains(page, "\njenkins_agent_up 1\n");
    })) << page
        << host_.plugin().stderr_text();
    return page;
  }
  void ExpectServed(const std::string& line) {
    EXPECT_TRUE(absl::StrContains(Page(), absl::StrCat("\n", line, "\n"))) << line;
  }
  int ListenerPid() {
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      int pid = 0;
      if (!absl::SimpleAtoi(entry.path().filename().native(), &pid)) continue;
      if (absl::StrContains(CommandLine(pid), absl::StrCat("127.0.0.1:", port_))) return pid;
    }
    return 0;
  }
  static std::string CommandLine(int pid) {
    return ReadFile(absl::StrCat("/proc/", pid, "/cmdline")).value_or("");
  }

  int port_ = 0;
};

TEST_F(MetricsContract, FollowATaskFromStartToEnd) {
  ExpectServed("jenkins_agent_up 1");
  ExpectServed("jenkins_agent_tasks 0");
  Start("exec sleep 600");
  const std::string page = Page();
  EXPECT_THAT(page, HasSubstr("\njenkins_agent_tasks 1\n"));
  EXPECT_THAT(page, HasSubstr("\njenkins_agent_starts_total{result=\"started\"} 1\n"));
  EXPECT_THAT(page, HasSubstr("\njenkins_agent_sandbox_start_seconds_count{phase=\"root\"} 1\n"));
  EXPECT_THAT(page, HasSubstr("\njenkins_agent_sandbox_start_seconds_count{phase=\"launch\"} 1\n"));
  EXPECT_THAT(page, HasSubstr("\njenkins_agent_threads 1\n"));
  EXPECT_THAT(page, HasSubstr("\njenkins_agent_threads_limit 2048\n"));
  ASSERT_THAT(host_.Stop(kId, "SIGTERM", 5000), Succeeded());
  ExpectServed("jenkins_agent_ends_total{result=\"stopped\"} 1");
  ExpectServed("jenkins_agent_tasks 0");
}

TEST_F(MetricsContract, ARefusedStartAndARecoveryAreCounted) {
  nomad::TaskConfig config = host_.Config(kOther, "true");
  config.set_user("root");
  EXPECT_THAT(TryStart(config), Not(Succeeded()));
  ExpectServed("jenkins_agent_starts_total{result=\"refused\"} 1");
  Start("exec sleep 600");
  const nomad::TaskHandle handle = handle_;
  RelaunchWithMetrics();
  ASSERT_THAT(host_.Recover(handle), Succeeded());
  ExpectServed("jenkins_agent_recoveries_total{result=\"recovered\"} 1");
  ExpectServed("jenkins_agent_tasks 1");
}

TEST_F(MetricsContract, NameNoJobAndHoldNoSecret) {
  nomad::TaskConfig config = host_.Config(kId, "exec sleep 600");
  (*config.mutable_env())["TOKEN"] = "s3cret-of-the-job";
  Start(config);
  const std::string page = Page();
  EXPECT_THAT(page, Not(HasSubstr("s3cret")));
  EXPECT_THAT(page, Not(HasSubstr(config.alloc_id())));
  EXPECT_THAT(page, Not(HasSubstr(kId)));
}

TEST_F(MetricsContract, AListenerThatDiesComesBack) {
  Page();
  const int first = ListenerPid();
  ASSERT_GT(first, 0);
  ::kill(first, SIGKILL);
  ASSERT_TRUE(WaitFor([&] { return ListenerPid() != first && ListenerPid() != 0; }));
  ExpectServed("jenkins_agent_up 1");
}

TEST_F(MetricsContract, APortThatIsTakenIsAMessageAndNoFailure) {
  ASSERT_OK(host_.Quit());
  Fd taken;
  port_ = FreePort(&taken);
  ASSERT_OK(host_.Launch({.metrics_listen = absl::StrCat(port_)}));
  EXPECT_TRUE(host_.plugin().AwaitStderr("bind: Address already in use"));
  Start("exit 7");
  EXPECT_EQ(Wait().result().exit_code(), 7);
  taken.Reset();
  ExpectServed("jenkins_agent_ends_total{result=\"failed\"} 1");
}

TEST_F(MetricsContract, TheListenerEndsWithAKilledPlugin) {
  Page();
  const int listener = ListenerPid();
  ASSERT_GT(listener, 0);
  ASSERT_OK(host_.Crash());
  EXPECT_TRUE(WaitFor([&] { return CommandLine(listener).empty(); }));
  ASSERT_OK(host_.Launch({.metrics_listen = absl::StrCat(port_)}));
  ExpectServed("jenkins_agent_up 1");
}

}  // namespace
}  // namespace jenkins_agent
