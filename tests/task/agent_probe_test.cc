// A look at real processes with real connections.
#include "driver/task/agent_probe.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/requires.h"
#include "tests/support/wait_for.h"
#include "tests/task/stand_in_agent.h"

namespace jenkins_agent {
namespace {

using Socket = HealthSample::Socket;
using ::testing::HasSubstr;
using ::testing::Optional;

AgentProbe ProbeOf(const StandInAgent& agent, const std::string& network = "") {
  return AgentProbe(
      {.pid = agent.pid(), .start_time = agent.start_time(), .network_namespace = network});
}

bool SeesSocket(AgentProbe& probe, Socket wanted) {
  return WaitFor([&] {
    const auto sample = probe.Look(true);
    return sample.ok() && sample->socket == wanted;
  });
}

TEST(AgentProbeTest, AConnectionIsFoundAndItsBytesAreCounted) {
  const Listener controller;
  const StandInAgent agent(HoldsAConnection(controller.port()));
  const Fd peer = controller.Accept();
  AgentProbe probe = ProbeOf(agent);
  ASSERT_OK_AND_ASSIGN(HealthSample sample, probe.Look(true));
  EXPECT_EQ(sample.socket, Socket::kEstablished);
  EXPECT_EQ(sample.unread_bytes, 0u);
  EXPECT_EQ(sample.threads, 1u);
  ASSERT_EQ(::write(peer.get(), "0123456789", 10), 10);
  ASSERT_OK_AND_ASSIGN(sample, probe.Look(true));
  EXPECT_EQ(sample.unread_bytes, 10u);
  EXPECT_EQ(sample.read_bytes, 0u);
  agent.Tell('r');
  ASSERT_TRUE(WaitFor([&] { return probe.Look(true)->unread_bytes == 0; }));
  EXPECT_EQ(probe.Look(true)->read_bytes, 10u);
}

TEST(AgentProbeTest, ACloseThatNobodyNoticesIsSeen) {
  const Listener controller;
  const StandInAgent agent(HoldsAConnection(controller.port()));
  Fd peer = controller.Accept();
  AgentProbe probe = ProbeOf(agent);
  ASSERT_TRUE(SeesSocket(probe, Socket::kEstablished));
  peer.Reset();
  EXPECT_TRUE(SeesSocket(probe, Socket::kClosing));
  agent.Tell('c');
  EXPECT_TRUE(SeesSocket(probe, Socket::kMissing));
}

TEST(AgentProbeTest, ASuccessorOfAClosedConnectionIsFound) {
  const Listener controller;
  const StandInAgent agent([&](int commands) {
    const int first = ConnectTo(controller.port(), true);
    char command;
    (void)!::read(commands, &command, 1);
    ::close(first);
    ConnectTo(controller.port(), true);
    ::pause();
  });
  Fd first = controller.Accept();
  AgentProbe probe = ProbeOf(agent);
  ASSERT_TRUE(SeesSocket(probe, Socket::kEstablished));
  first.Reset();
  ASSERT_TRUE(SeesSocket(probe, Socket::kClosing));
  agent.Tell('x');
  EXPECT_TRUE(SeesSocket(probe, Socket::kEstablished));
}

TEST(AgentProbeTest, OtherConnectionsOfTheJvmAreNotTaken) {
  const Listener controller, elsewhere;
  const StandInAgent agent([&](int) {
    ConnectTo(elsewhere.port(), false);  // older, and without keep-alive
    ConnectTo(controller.port(), true);
    ConnectTo(elsewhere.port(), false);
    ::pause();
  });
  const Fd before = elsewhere.Accept();
  Fd peer = controller.Accept();
  const Fd after = elsewhere.Accept();
  AgentProbe probe = ProbeOf(agent);
  ASSERT_EQ(::write(before.get(), "x", 1), 1);
  ASSERT_OK_AND_ASSIGN(const HealthSample sample, probe.Look(true));
  EXPECT_EQ(sample.socket, Socket::kEstablished);
  EXPECT_EQ(sample.unread_bytes, 0u);
  peer.Reset();
  EXPECT_TRUE(SeesSocket(probe, Socket::kClosing));
}

TEST(AgentProbeTest, WithoutKeepAliveTheOldestEstablishedOneIsTaken) {
  const auto socket = [](uint32_t inode, uint8_t state) {
    return TcpSocket{.inode = inode, .state = state};
  };
  const auto inode = [](const std::vector<TcpSocket>& sockets) {
    const std::optional<TcpSocket> found = ControllerSocket(sockets);
    return found.has_value() ? std::optional<uint32_t>(found->inode) : std::nullopt;
  };
  EXPECT_THAT(
      inode({socket(7, TCP_ESTABLISHED), socket(5, TCP_ESTABLISHED), socket(3, TCP_CLOSE_WAIT)}),
      Optional(5u));
  EXPECT_THAT(inode({socket(3, TCP_CLOSE_WAIT)}), Optional(3u));
  EXPECT_EQ(inode({}), std::nullopt);
}

TEST(AgentProbeTest, AStoppedProcessIsSeen) {
  const StandInAgent agent([](int) { ::pause(); });
  AgentProbe probe = ProbeOf(agent);
  agent.Stop();
  ASSERT_OK_AND_ASSIGN(const HealthSample sample, probe.Look(false));
  EXPECT_EQ(sample.process_state, 'T');
  EXPECT_EQ(sample.socket, Socket::kUnknown);
}

TEST(AgentProbeTest, AnotherProcessOfThatPidIsNotLookedAt) {
  const StandInAgent agent([](int) { ::pause(); });
  AgentProbe probe({.pid = agent.pid(), .start_time = agent.start_time() + 1});
  EXPECT_THAT(probe.Look(true),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("another process")));
}

TEST(AgentProbeTest, AProcessThatHasEndedIsSaidToHave) {
  const StandInAgent agent([](int) {});
  AgentProbe probe = ProbeOf(agent);
  EXPECT_TRUE(WaitFor([&] { return absl::IsNotFound(probe.Look(true).status()); }));
}

// In a namespace of its own, which this process never enters.
TEST(AgentProbeTest, AConnectionInAnotherNetworkNamespaceIsFound) {
  REQUIRES_ROOT();
  const auto lo_up = [] {
    const int any = ::socket(AF_INET, SOCK_DGRAM, 0);
    struct {
      char name[16] = "lo";
      short flags = 0x1;  // IFF_UP
      char rest[22] = {};
    } request;
    return ::ioctl(any, 0x8914 /* SIOCSIFFLAGS */, &request) == 0;
  };
  const StandInAgent agent([&](int commands) {
    if (::unshare(CLONE_NEWNET) != 0 || !lo_up()) return;
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    ::listen(listener, 1);
    sockaddr_in address = {};
    socklen_t size = sizeof(address);
    ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    ConnectTo(ntohs(address.sin_port), true);
    char command;
    (void)!::read(commands, &command, 1);
  });
  const std::string network = absl::StrCat("/proc/", agent.pid(), "/ns/net");
  std::array<char, 64> here, there;
  ASSERT_TRUE(WaitFor([&] {
    const ssize_t a = ::readlink("/proc/self/ns/net", here.data(), here.size());
    const ssize_t b = ::readlink(network.c_str(), there.data(), there.size());
    return std::string(here.data(), a) != std::string(there.data(), b);
  }));
  AgentProbe probe = ProbeOf(agent, network);
  EXPECT_TRUE(SeesSocket(probe, Socket::kEstablished));
}

}  // namespace
}  // namespace jenkins_agent
