// An HTTP server on 127.0.0.1 that answers as the test says, however badly. One connection at a
// time, one request for each; its thread ends with the object.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

class FakeController {
 public:
  // Gets the path of the request; writes the raw answer with `send`, which is false when the client
  // has gone.
  using Send = std::function<bool(const std::string&)>;
  using Handler = std::function<void(const std::string& path, const Send& send)>;

  explicit FakeController(Handler handler) : handler_(std::move(handler)) {
    listener_.Reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    (void)::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size);
    (void)::listen(listener_.get(), 16);
    (void)::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~FakeController() {
    ::shutdown(listener_.get(), SHUT_RDWR);  // ends accept()
    thread_.join();
  }

  std::string url() const { return absl::StrCat("http://127.0.0.1:", port_, "/"); }
  int port() const { return port_; }
  std::vector<std::string> requests() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return requests_;
  }

  static std::string Answer(const std::string& status, const std::string& headers,
                            const std::string& body) {
    return absl::StrCat("HTTP/1.1 ", status, "\r\n", headers, "Content-Length: ", body.size(),
                        "\r\nConnection: close\r\n\r\n", body);
  }

 private:
  void Serve() {
    for (;;) {
      const Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client.valid()) return;
      std::string head;
      char block[4096];
      while (!absl::StrContains(head, "\r\n\r\n")) {
        const ssize_t count = ::recv(client.get(), block, sizeof(block), 0);
        if (count <= 0) break;
        head.append(block, count);
      }
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        requests_.push_back(head);
      }
      const size_t begin = head.find(' ') + 1;
      handler_(head.substr(begin, head.find(' ', begin) - begin), [&](const std::string& data) {
        for (size_t sent = 0; sent < data.size();) {
          const ssize_t count =
              ::send(client.get(), data.data() + sent, data.size() - sent, MSG_NOSIGNAL);
          if (count <= 0) return false;
          sent += count;
        }
        return true;
      });
    }
  }

  const Handler handler_;
  Fd listener_;
  int port_ = 0;
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::thread thread_;
};

}  // namespace jenkins_agent
