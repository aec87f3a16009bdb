#include "driver/base/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace jenkins_agent {
namespace {

TEST(Process, IsStoppedUntilItIsContinued) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (;;) ::pause();
  }
  EXPECT_FALSE(ProcessStopped(child));
  ::kill(child, SIGSTOP);
  ASSERT_EQ(::waitpid(child, nullptr, WUNTRACED), child);
  EXPECT_TRUE(ProcessStopped(child));
  ::kill(child, SIGCONT);
  ASSERT_EQ(::waitpid(child, nullptr, WCONTINUED), child);
  EXPECT_FALSE(ProcessStopped(child));
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_FALSE(ProcessStopped(child));
}

}  // namespace
}  // namespace jenkins_agent
