// One HTTP request whose answer is read as a stream, at the reader's pace: what is not read yet
// waits in the connection, not in memory.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "driver/image/byte_source.h"

namespace jenkins_agent {

inline constexpr std::chrono::seconds kHttpIdleTimeout{60};  // without a byte, or below 100 B/s

struct HttpStreamRequest {
  std::string url;                   // http or https
  std::vector<std::string> headers;  // "Name: value"
  std::string form;                  // not empty: a POST of this form
  std::string ca_file;               // PEM, instead of the system's certificates; empty: those
  bool allow_link_local = true;      // false: not to 169.254.0.0/16 or fe80::/10, whatever the name
};

class HttpStream : public ByteSource {
 public:
  // Returns when the answer's head is here, whatever its status. Redirects are not followed.
  // Unavailable: no answer, for the reason in the message, which never holds the url's query.
  static absl::StatusOr<std::unique_ptr<HttpStream>> Open(const HttpStreamRequest& request);

  virtual int status() const = 0;
  virtual const std::string& status_text() const = 0;  // "404 Not Found", printable
  // Of a header, its name in lower case; empty: there is none.
  virtual std::string header(const std::string& name) const = 0;
  // Where a redirect leads to, absolute; empty: nowhere.
  virtual const std::string& redirect() const = 0;
};

// Scheme and authority of a url in lower case, "https://host:443"; empty when it is none.
std::string UrlOrigin(const std::string& text);
// A text as part of a url's query.
std::string UrlEscape(const std::string& text);

}  // namespace jenkins_agent
