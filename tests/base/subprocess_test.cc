#include "driver/base/subprocess.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Shell(const std::string& script) { return {"/bin/sh", "-c", script}; }

// The descriptors that `ls` sees: its own directory descriptor comes on top of the inherited ones.
std::vector<std::string> ListFds(const StartOptions& options) {
  StartOptions with_pipe = options;
  with_pipe.pipe_stdout = true;
  auto child = Start({"/bin/ls", "/proc/self/fd"}, with_pipe);
  EXPECT_OK(child);
  const std::string listing = *ReadAll(child->output.get(), 4096);
  EXPECT_OK(Wait(*child));
  return absl::StrSplit(listing, '\n', absl::SkipEmpty());
}

TEST(Run, ReturnsOutputAndExitCode) {
  ASSERT_OK_AND_ASSIGN(const RunResult result,
                       jenkins_agent::Run(Shell("echo out; echo err >&2; exit 3"), {}));
  EXPECT_EQ(result.exit.exit_code, 3);
  EXPECT_EQ(result.exit.signal, 0);
  EXPECT_EQ(result.output, "out\n");
  EXPECT_EQ(result.error_tail, "err\n");
  EXPECT_FALSE(result.truncated);
}

TEST(Run, ReportsASignal) {
  ASSERT_OK_AND_ASSIGN(const RunResult result, jenkins_agent::Run(Shell("kill -TERM $$"), {}));
  EXPECT_EQ(result.exit.exit_code, 128 + SIGTERM);
  EXPECT_EQ(result.exit.signal, SIGTERM);
}

TEST(Run, GivesOnlyTheEnvironmentItWasGiven) {
  ::setenv("SECRET_OF_THE_AGENT", "x", 1);
  ASSERT_OK_AND_ASSIGN(const RunResult result,
                       jenkins_agent::Run({"/usr/bin/env"}, {.env = {"A=1", "EMPTY=", "B=x=y:z"}}));
  EXPECT_EQ(result.output, "A=1\nEMPTY=\nB=x=y:z\n");
}

TEST(Run, PassesStdin) {
  const std::string input(300'000, 'x');
  ASSERT_OK_AND_ASSIGN(const RunResult result,
                       jenkins_agent::Run({"/bin/cat"}, {.stdin_data = input}));
  EXPECT_EQ(result.output, input);
}

TEST(Run, KeepsTheFirstOutputAndTheLastErrors) {
  ASSERT_OK_AND_ASSIGN(
      const RunResult result,
      jenkins_agent::Run(Shell("for i in 1 2 3 4 5 6 7 8; do echo out$i; echo err$i >&2; done"),
                         {.max_output = 10}));
  EXPECT_EQ(result.output, "out1\nout2\n");
  EXPECT_EQ(result.error_tail, "err7\nerr8\n");
  EXPECT_TRUE(result.truncated);
}

TEST(Run, ReadsAMegabyteOfBothWithoutDeadlock) {
  ASSERT_OK_AND_ASSIGN(
      const RunResult result,
      jenkins_agent::Run(Shell("head -c 1000000 /dev/zero >&2; head -c 1000000 /dev/zero"), {}));
  EXPECT_EQ(result.output.size(), 1'000'000u);
  EXPECT_EQ(result.error_tail.size(), 1'000'000u);
}

TEST(Run, EndsAProgramThatTakesTooLong) {
  EXPECT_THAT(jenkins_agent::Run(Shell("echo busy >&2; sleep 1000 & sleep 1000"),
                                 {.timeout = milliseconds(300)}),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("busy")));
}

TEST(Run, DoesNotWaitForWhatTheProgramLeftBehind) {
  // The sleeper holds both pipes; it is in the program's process group and ends with it.
  ASSERT_OK_AND_ASSIGN(const RunResult result,
                       jenkins_agent::Run(Shell("sleep 1000 & echo $!"), {}));
  int pid = 0;
  ASSERT_TRUE(absl::SimpleAtoi(result.output, &pid));
  for (int i = 0; i < 1000 && ::kill(pid, 0) == 0; ++i) {
    std::string stat = ReadFile(absl::StrCat("/proc/", pid, "/stat")).value_or("");
    if (stat.find(") Z ") != std::string::npos) break;
    std::this_thread::sleep_for(milliseconds(10));
  }
  const std::string stat = ReadFile(absl::StrCat("/proc/", pid, "/stat")).value_or(") Z ");
  EXPECT_THAT(stat, HasSubstr(") Z "));
}

TEST(Run, NamesAProgramThatCannotBeExecuted) {
  EXPECT_THAT(jenkins_agent::Run({"/no/such/program"}, {}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/program")));
  EXPECT_THAT(jenkins_agent::Run({"/etc/passwd"}, {}),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("/etc/passwd")));
  EXPECT_THAT(jenkins_agent::Run({"ls"}, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'ls'")));
  EXPECT_THAT(jenkins_agent::Run({}, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("path")));
}

TEST(Start, ChildHasItsStandardDescriptorsOnly) {
  const Fd without_cloexec(::open("/dev/null", O_RDONLY));
  const Fd high(::fcntl(without_cloexec.get(), F_DUPFD, 500));
  EXPECT_THAT(ListFds({}), ElementsAre("0", "1", "2", "3"));  // 3: ls reads the directory
}

TEST(Start, ChildHasTheDescriptorsItWasGivenAtTheirNumbers) {
  ASSERT_OK_AND_ASSIGN(const Pipe pipe, MakePipe());
  const std::vector<std::string> fds =
      ListFds({.fds = {{pipe.read.get(), 5}, {pipe.write.get(), 3}}});
  EXPECT_THAT(fds, ElementsAre("0", "1", "2", "3", "4", "5"));  // 4: the directory
}

TEST(Start, DescriptorsMaySwapTheirNumbers) {
  ASSERT_OK_AND_ASSIGN(Fd first, MakeSealedMemfd("first", "first"));
  ASSERT_OK_AND_ASSIGN(Fd second, MakeSealedMemfd("second", "second"));
  ASSERT_OK_AND_ASSIGN(const Subprocess child,
                       Start(Shell(absl::StrCat("cat <&", first.get(), "; cat <&", second.get())),
                             {.pipe_stdout = true,
                              .fds = {{first.get(), second.get()}, {second.get(), first.get()}}}));
  EXPECT_EQ(*ReadAll(child.output.get(), 100), "secondfirst");
  ASSERT_OK(Wait(child));
}

TEST(Start, AnErrorIsSeenEvenWhenEveryLowNumberIsTaken) {
  ASSERT_OK_AND_ASSIGN(const Pipe pipe, MakePipe());
  StartOptions options;
  for (int number = 3; number < 40; ++number) options.fds.emplace_back(pipe.read.get(), number);
  EXPECT_THAT(Start({"/no/such/program"}, options),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/program")));
}

TEST(Start, RunsAProgramHeldAsADescriptor) {
  ASSERT_OK_AND_ASSIGN(const std::string program, ReadFile("/bin/echo", 16 << 20));
  ASSERT_OK_AND_ASSIGN(const Fd memfd, MakeSealedMemfd("echo", program));
  // Another descriptor takes its number in the child.
  ASSERT_OK_AND_ASSIGN(const Pipe pipe, MakePipe());
  ASSERT_OK_AND_ASSIGN(const Subprocess child,
                       Start({absl::StrCat("/proc/self/fd/", memfd.get()), "from", "memory"},
                             {.pipe_stdout = true, .fds = {{pipe.read.get(), memfd.get()}}}));
  EXPECT_EQ(*ReadAll(child.output.get(), 100), "from memory\n");
  ASSERT_OK_AND_ASSIGN(const ExitStatus exit, Wait(child));
  EXPECT_EQ(exit.exit_code, 0);
}

TEST(Start, ChildDoesNotInheritIgnoredSignalsOrTheMask) {
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGINT, SIG_IGN);
  sigset_t blocked;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGUSR1);
  ::pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  ASSERT_OK_AND_ASSIGN(
      const RunResult result,
      jenkins_agent::Run({"/bin/grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"}, {}));
  EXPECT_EQ(result.output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
  ::pthread_sigmask(SIG_UNBLOCK, &blocked, nullptr);
}

TEST(Start, ChildLeadsItsOwnSession) {
  ASSERT_OK_AND_ASSIGN(const Subprocess child,
                       Start(Shell("read line"), {.stdin_fd = MakePipe()->read.get()}));
  EXPECT_NE(::getsid(child.pid), ::getsid(0));
  ASSERT_OK(Wait(child));
}

TEST(Start, PidfdTellsTheEnd) {
  ASSERT_OK_AND_ASSIGN(const Subprocess child, Start({"/bin/sleep", "1000"}, {}));
  pollfd end = {child.pidfd.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&end, 1, 0), 0);
  ::kill(child.pid, SIGKILL);
  EXPECT_EQ(::poll(&end, 1, 30'000), 1);
  ASSERT_OK_AND_ASSIGN(const ExitStatus exit, Wait(child));
  EXPECT_EQ(exit.signal, SIGKILL);
}

TEST(Start, ManyAtOnceDoNotHoldEachOthersPipes) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 10; ++i) {
        auto result = jenkins_agent::Run({"/bin/echo", "x"}, {.timeout = seconds(60)});
        ASSERT_OK(result);
        EXPECT_EQ(result->output, "x\n");
        EXPECT_THAT(ListFds({}), ElementsAre("0", "1", "2", "3"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace jenkins_agent
