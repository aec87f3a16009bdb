// Nomad's HTTP API through libcurl: requests of one thread, several at a time where asked for,
// connections kept between them.
//
// Errors, with Nomad's own (short) text: PermissionDenied (403), NotFound (404), InvalidArgument
// (other 4xx), Unavailable (no answer, 5xx, or one that is not Nomad's: a web page, a redirection),
// ResourceExhausted (429, or an answer beyond kMaxAnswerBytes). The token is in no message.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "driver/nomad/environment.h"

namespace jenkins_agent::nomad {

// A page of a list is a few MB; the largest single answer is a job.
inline constexpr size_t kMaxAnswerBytes = 256 << 20;
inline constexpr size_t kMaxPages = 10000;  // of one list; a server that never ends it is given up
inline constexpr int kMaxParallel = 16;  // Nomad's default limit is 100 connections of one address

using Query = std::vector<std::pair<std::string, std::string>>;

struct Answer {
  std::string body;
  std::string next_token;  // X-Nomad-NextToken: the next page begins there; empty: the last one
};

class Client {
 public:
  static absl::StatusOr<std::unique_ptr<Client>> Create(const Endpoint& endpoint);
  virtual ~Client() = default;

  virtual const Endpoint& endpoint() const = 0;

  // `path`: "/v1/nodes", its parts escaped by EscapePath. Region and, unless `query` names one, the
  // endpoint's namespace are added.
  virtual absl::StatusOr<Answer> Get(const std::string& path, const Query& query) = 0;
  virtual absl::StatusOr<Answer> Put(const std::string& path, const std::string& body) = 0;
  // A list page by page, `per_page` entries each: `take` gets a page's body while the next page is
  // on its way, so that two of them are held as text at most. Ends with the first error of either.
  virtual absl::Status GetPages(const std::string& path, const Query& query, int per_page,
                                const std::function<absl::Status(const std::string&)>& take) = 0;
  // Many at once, at most kMaxParallel on the wire; answers in the order of the paths.
  virtual std::vector<absl::StatusOr<Answer>> GetAll(const std::vector<std::string>& paths) = 0;
  // Hands on the lines of an endless answer until it ends (Unavailable) or a callback returns an
  // error, which is returned. `on_quiet` is called whenever no line came for `quiet_after`.
  virtual absl::Status Stream(const std::string& path, const Query& query,
                              std::chrono::milliseconds quiet_after,
                              const std::function<absl::Status(absl::string_view)>& on_line,
                              const std::function<absl::Status()>& on_quiet) = 0;
};

// One part of a path, or a value of a query, in percent escapes.
std::string Escape(absl::string_view text);

}  // namespace jenkins_agent::nomad
