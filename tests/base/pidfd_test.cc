#include "driver/base/pidfd.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Pidfd, SignalsItsProcessAndTellsItsEnd) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    for (;;) ::pause();
  }
  ASSERT_OK_AND_ASSIGN(const Fd pidfd, OpenPidfd(pid));
  EXPECT_EQ(PidOfPidfd(pidfd.get()), pid);
  EXPECT_OK(SignalPidfd(pidfd.get(), 0));
  EXPECT_THAT(SignalPidfd(pidfd.get(), 1000),
              StatusIs(absl::StatusCode::kInvalidArgument, testing::HasSubstr("signal 1000")));
  EXPECT_FALSE(AwaitPidfd(pidfd.get(), milliseconds(0)));
  EXPECT_OK(SignalPidfd(pidfd.get(), SIGKILL));
  EXPECT_TRUE(AwaitPidfd(pidfd.get(), seconds(30)));
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(WTERMSIG(status), SIGKILL);

  // Reaped: the number may be anybody's, the descriptor means nobody.
  EXPECT_EQ(PidOfPidfd(pidfd.get()), 0);
  EXPECT_OK(SignalPidfd(pidfd.get(), SIGKILL));
  EXPECT_THAT(OpenPidfd(pid), StatusIs(absl::StatusCode::kNotFound, testing::_));
}

}  // namespace
}  // namespace jenkins_agent
