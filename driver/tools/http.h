// HTTP GET against servers that a job names: everything they send is hostile and bounded.
//
// One transfer at a time, one thread. A readable or closed `cancel_fd` ends any wait with
// Cancelled.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

inline constexpr int kMaxRedirects = 5;
inline constexpr std::chrono::seconds kConnectTimeout{10};
inline constexpr size_t kMaxHeaderBytes = 64 << 10;  // of one answer
inline constexpr size_t kMaxStatusLineBytes = 128;

struct HttpRequest {
  std::string url;
  std::vector<std::string> headers;  // "Name: value"
  // Called with the pieces of a 200's body; empty: the transfer ends behind the headers.
  std::function<absl::Status(absl::string_view)> on_body;
  std::chrono::seconds timeout{60};
};

struct HttpResponse {
  int status = 0;
  std::string status_text;                     // "503 Service Unavailable", printable
  std::map<std::string, std::string> headers;  // names in lower case
};

class HttpClient {
 public:
  // `ca_pem`: certificates trusted beside the system's; may be empty.
  static absl::StatusOr<std::unique_ptr<HttpClient>> Create(std::string ca_pem, int cancel_fd);
  virtual ~HttpClient() = default;

  // Follows redirects within one host, never from https to http. Any HTTP answer is OK, whatever
  // its status. Unavailable: no answer, for the reason in the message (without the url).
  // InvalidArgument: the url is none. PermissionDenied: a redirect that is not followed.
  virtual absl::StatusOr<HttpResponse> Get(const HttpRequest& request) = 0;
  // Opens a TCP connection and closes it again. Unavailable: not within kConnectTimeout, or why
  // not.
  virtual absl::Status Connect(const std::string& host, int port) = 0;
  // Waits; Cancelled when `cancel_fd` says so.
  virtual absl::Status Wait(std::chrono::milliseconds duration) = 0;
};

// Host of a url, in lower case; "" when it is none.
std::string HostOfUrl(const std::string& text);

// The url without user and password, for messages.
std::string DisplayUrl(const std::string& text);

}  // namespace jenkins_agent
