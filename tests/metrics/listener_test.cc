// The listener program as the plugin starts it, with this test in the plugin's place.
#include "driver/metrics/listener.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/nobody.h"
#include "driver/base/packet.h"
#include "driver/base/subprocess.h"
#include "driver/metrics/metrics.h"
#include "driver/sandbox/seccomp.h"
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

  void Launch(const std::string& filter = ExporterFilter()) {
    ASSERT_OK_AND_ASSIGN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
    ASSERT_OK(SendPacket(sockets.first.get(), filter));
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

// What was written below a thread's small stack hit something else in each process: one in five
// served a damaged page or died.
TEST_F(ListenerTest, EachOfManyServesItsPageWhole) {
  Metrics metrics;
  metrics.Observe(Metric::kSandboxStart, "root", 0.0009);
  for (int i = 0; i < 25; ++i) {
    Launch();
    ASSERT_TRUE(Hear().listening());
    std::thread plugin = Answering(metrics.Snapshot());
    const std::string page = Scrape(port_);
    plugin.join();
    EXPECT_THAT(page, HasSubstr("_bucket{phase=\"root\",le=\"0.0005\"} 0\n"));
    EXPECT_THAT(page, HasSubstr("_bucket{phase=\"root\",le=\"+Inf\"} 1\n"));
    ::kill(process_.pid, SIGKILL);
    ASSERT_OK(Wait(process_));
    process_.pid = -1;
  }
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

TEST_F(ListenerTest, EveryThreadIsUnderItsFilter) {
  Launch();
  ASSERT_TRUE(Hear().listening());
  int threads = 0;
  for (const auto& thread :
       std::filesystem::directory_iterator(absl::StrCat("/proc/", process_.pid, "/task"))) {
    ASSERT_OK_AND_ASSIGN(const std::string status, ReadFile(thread.path().native() + "/status"));
    EXPECT_THAT(status, HasSubstr("Seccomp:\t2\n"));
    ++threads;
  }
  EXPECT_GT(threads, 2);  // civetweb's
}

TEST_F(ListenerTest, WithADamagedFilterItDoesNotServe) {
  Launch("damaged");
  EXPECT_THAT(Hear().error(), HasSubstr("filter"));
}

// From inside: what is left to somebody who runs code of his own in it.
TEST_F(ListenerTest, ItsFilterLeavesNoFilesProcessesOrOtherSockets) {
  Pipe answer = *MakePipe();
  const pid_t pid = ::fork();
  if (pid == 0) {
    std::string allowed =
        DropToNobody().ok() && LoadFilter(ExporterFilter()).ok() ? "" : "no filter";
    const auto attempt = [&allowed](const char* name, auto call) {
      errno = 0;
      if (call() >= 0 || (errno != EPERM && errno != ENOSYS)) allowed += absl::StrCat(name, " ");
    };
    attempt("open", [] { return ::open("/etc/passwd", O_RDONLY); });
    attempt("create", [] { return ::open("/tmp/exporter", O_CREAT | O_WRONLY, 0600); });
    attempt("execve", [] { return ::execl("/bin/true", "true", nullptr); });
    attempt("fork", [] { return ::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); });
    attempt("kill", [] { return ::kill(::getppid(), 0); });
    attempt("ptrace", [] { return ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); });
    attempt("unix socket", [] { return ::socket(AF_UNIX, SOCK_STREAM, 0); });
    attempt("netlink socket", [] { return ::socket(AF_NETLINK, SOCK_RAW, 0); });
    attempt("connect", [] { return ::connect(0, nullptr, 0); });
    attempt("user namespace", [] { return ::unshare(CLONE_NEWUSER); });
    attempt("io_uring", [] { return ::syscall(SYS_io_uring_setup, 1, nullptr); });
    if (::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0) allowed += "but no TCP";
    WriteAll(answer.write.get(), allowed).IgnoreError();
    ::_exit(0);
  }
  answer.write.Reset();
  ASSERT_OK_AND_ASSIGN(const std::string allowed, ReadAll(answer.read.get(), 4096));
  ::waitpid(pid, nullptr, 0);
  EXPECT_EQ(allowed, "");
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
