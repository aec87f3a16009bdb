// One HTTP GET, for what the metrics listener serves.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

inline sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A port of the loopback address that nobody has at this moment, with a socket that listens on it
// if `taken` is not null. Not one that the kernel gives to connections (ip_local_port_range, from
// 32768 on): those of other programs would take it while the listener is away.
inline int FreePort(Fd* taken = nullptr) {
  constexpr int kFirst = 20000;
  constexpr int kCount = 10000;
  constexpr int kOfOneTest = 8;  // test programs that run side by side have pids side by side
  for (int i = 0; i < kCount; ++i) {
    const int port = kFirst + (::getpid() * kOfOneTest + i) % kCount;
    Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in address = Loopback(port);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        ::listen(socket.get(), 1) != 0) {
      continue;
    }
    if (taken != nullptr) *taken = std::move(socket);
    return port;
  }
  return -1;
}

// The whole answer; "" when nobody listens.
inline std::string Get(int port, const std::string& path) {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = Loopback(port);
  const timeval limit = {20, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return "";
  }
  const std::string request =
      absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  if (::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) return "";
  std::string answer;
  char block[4096];
  for (ssize_t size; (size = ::recv(socket.get(), block, sizeof(block), 0)) > 0;) {
    answer.append(block, size);
  }
  return answer;
}

inline std::string Scrape(int port) { return Get(port, "/metrics"); }

}  // namespace jenkins_agent
