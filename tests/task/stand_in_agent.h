// A process that holds a connection as an agent's JVM does, and does with it what it is told.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver/base/fd.h"
#include "driver/base/process.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {

// The controller's side.
class Listener {
 public:
  Listener() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = Loopback(0);
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(socket_.get(), 8), 0);
    socklen_t size = sizeof(address);
    ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  int fd() const { return socket_.get(); }
  uint16_t port() const { return port_; }
  Fd Accept() const { return Fd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

  static sockaddr_in Loopback(uint16_t port) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

 private:
  Fd socket_;
  uint16_t port_ = 0;
};

// Dual-stack, as Java's sockets are. -1: refused.
inline int ConnectTo(uint16_t port, bool keep_alive) {
  const int socket = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = keep_alive ? 1 : 0;
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  sockaddr_in6 address = {};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  ::inet_pton(AF_INET6, "::ffff:127.0.0.1", &address.sin6_addr);
  if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return socket;
  ::close(socket);
  return -1;
}

class StandInAgent {
 public:
  // `body` is what the process does, with the reading end of Tell(). Only system calls.
  template <typename Body>
  explicit StandInAgent(Body body) {
    auto commands = MakePipe();
    EXPECT_OK(commands);
    pid_ = ::fork();
    if (pid_ == 0) {
      commands->write.Reset();
      body(commands->read.get());
      ::_exit(0);
    }
    commands_ = std::move(commands->write);
    start_time_ = ProcessStartTime(pid_).value_or(0);
  }
  ~StandInAgent() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  StandInAgent(const StandInAgent&) = delete;
  StandInAgent& operator=(const StandInAgent&) = delete;

  void Tell(char command) const { EXPECT_EQ(::write(commands_.get(), &command, 1), 1); }
  void Stop() const {
    ::kill(pid_, SIGSTOP);
    EXPECT_EQ(::waitpid(pid_, nullptr, WUNTRACED), pid_);
  }
  pid_t pid() const { return pid_; }
  uint64_t start_time() const { return start_time_; }

 private:
  pid_t pid_ = 0;
  uint64_t start_time_ = 0;
  Fd commands_;
};

// Connects and leaves the connection alone, but: 'r' reads once, 'c' closes it.
inline auto HoldsAConnection(uint16_t port, bool keep_alive = true) {
  return [port, keep_alive](int commands) {
    const int socket = ConnectTo(port, keep_alive);
    char command, bytes[4096];
    while (::read(commands, &command, 1) == 1) {
      if (command == 'r') (void)!::read(socket, bytes, sizeof(bytes));
      if (command == 'c') ::close(socket);
    }
  };
}

}  // namespace jenkins_agent
