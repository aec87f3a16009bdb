// The sandbox's network, asked from inside.
#include "driver/sandbox/network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "tests/sandbox/sandbox_run.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

TEST(EnterNetwork, NoneIsALoopbackAndNothingElse) {
  REQUIRES_ROOT();
  TestSandbox sandbox;
  sandbox.spec().set_own_network(true);
  const SandboxResult result = sandbox.Shell(
      "ls /sys/class/net; cat /sys/class/net/lo/operstate; tail -n +2 /proc/net/route; exec "
      "3</dev/null; python3 -c \"import socket; s = socket.create_server(('127.0.0.1', 0)); "
      "socket.create_connection(s.getsockname()); print('connected')\"");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.output, "lo\nunknown\nconnected\n");
}

// Nomad leaves the loopback of network { mode = "none" } down.
TEST(EnterNetwork, TheLoopbackOfANamespaceThatSomebodyMadeComesUp) {
  REQUIRES_ROOT();
  ASSERT_OK_AND_ASSIGN(Pipe made, MakePipe());
  ASSERT_OK_AND_ASSIGN(Pipe done, MakePipe());
  const pid_t owner = ::fork();
  if (owner == 0) {
    done.write.Reset();
    char byte = ::unshare(CLONE_NEWNET) == 0 ? 'y' : 'n';
    (void)!::write(made.write.get(), &byte, 1);
    (void)!::read(done.read.get(), &byte, 1);
    ::_exit(0);
  }
  char answer = 0;
  ASSERT_EQ(::read(made.read.get(), &answer, 1), 1);
  ASSERT_EQ(answer, 'y');
  TestSandbox sandbox;
  sandbox.spec().set_network_namespace(absl::StrCat("/proc/", owner, "/ns/net"));
  const SandboxResult result = sandbox.Shell("ls /sys/class/net; cat /sys/class/net/lo/flags");
  EXPECT_EQ(result.output, "lo\n0x9\n");  // IFF_UP and IFF_LOOPBACK
  done.write.Reset();
  ::waitpid(owner, nullptr, 0);
}

TEST(EnterNetwork, TheHostsIsNotTouched) {
  REQUIRES_ROOT();
  char before[64] = {};
  char after[64] = {};
  ASSERT_GT(::readlink("/proc/self/ns/net", before, sizeof(before) - 1), 0);
  EXPECT_TRUE(EnterNetwork(pb::SandboxSpec()).ok());
  ASSERT_GT(::readlink("/proc/self/ns/net", after, sizeof(after) - 1), 0);
  EXPECT_STREQ(before, after);
}

TEST(JoinNetworkNamespace, NamesWhatCouldNotBeJoined) {
  EXPECT_TRUE(JoinNetworkNamespace("").ok());
  EXPECT_THAT(std::string(JoinNetworkNamespace("/missing/ns").message()), HasSubstr("/missing/ns"));
  EXPECT_THAT(std::string(JoinNetworkNamespace("/dev/null").message()),
              HasSubstr("join network namespace /dev/null"));
}

}  // namespace
}  // namespace jenkins_agent
