#include "driver/tools/fetch.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr std::chrono::seconds kDiscoveryTimeout{60};
constexpr std::chrono::seconds kJarTimeout{600};
constexpr size_t kMaxValidatorBytes = 256;
constexpr const char* kJarNames[] = {"agent.jar", "remoting.jar", "slave.jar"};

std::string Join(const std::string& url, absl::string_view path) {
  return absl::StrCat(url, absl::EndsWith(url, "/") ? "" : "/", path);
}

bool NamesAgentPort(const HttpResponse& response) {
  return response.headers.count("x-jenkins-jnlp-port") > 0 ||
         response.headers.count("x-hudson-jnlp-port") > 0;
}

// Writes pieces to the start of `fd`, at most kMaxJarBytes.
class JarSink {
 public:
  explicit JarSink(int fd) : fd_(fd) {}
  absl::Status Start() {
    written_ = 0;
    if (::ftruncate(fd_, 0) != 0 || ::lseek(fd_, 0, SEEK_SET) != 0) {
      return ErrnoStatus("agent.jar in the cache");
    }
    return absl::OkStatus();
  }
  absl::Status Write(absl::string_view piece) {
    written_ += piece.size();
    if (written_ > kMaxJarBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("is longer than ", kMaxJarBytes >> 20, " MiB, which no agent.jar is"));
    }
    return Annotate(WriteAll(fd_, piece), "agent.jar in the cache");
  }

 private:
  const int fd_;
  size_t written_ = 0;
};

// What a controller, or the proxy in front of it, answers before it is up.
bool IsStarting(const HttpResponse& response) {
  return response.status == 502 || response.status == 503 || response.status == 504;
}

// Both, as RFC 9110 13.2.2 wants it: a server that knows ETags heeds only the first.
std::vector<std::string> Conditions(const JarValidators& validators) {
  std::vector<std::string> headers;
  if (!validators.etag.empty()) {
    headers.push_back(absl::StrCat("If-None-Match: ", validators.etag));
  }
  if (!validators.last_modified.empty()) {
    headers.push_back(absl::StrCat("If-Modified-Since: ", validators.last_modified));
  }
  return headers;
}

// They are kept and sent back: nothing that could be more than one header's value.
std::string Validator(const HttpResponse& response, const char* name) {
  const auto found = response.headers.find(name);
  if (found == response.headers.end() || found->second.size() > kMaxValidatorBytes) return "";
  const bool printable = std::all_of(found->second.begin(), found->second.end(),
                                     [](char c) { return absl::ascii_isprint(c); });
  return printable ? found->second : "";
}

JarValidators ValidatorsOf(const HttpResponse& response) {
  return {Validator(response, "etag"), Validator(response, "last-modified")};
}

absl::Status JarAnswerError(const HttpResponse& response) {
  if (response.status >= 500) return absl::UnavailableError(response.status_text);
  if (response.status == 404) return absl::NotFoundError(response.status_text);
  return absl::FailedPreconditionError(response.status_text);
}

}  // namespace

absl::StatusOr<HttpResponse> AskController(HttpClient& http, const ControllerAddress& address,
                                           const std::string& url) {
  HttpRequest request;
  request.url = Join(url, address.web_socket ? "login" : "tcpSlaveAgentListener/");
  request.headers = {absl::StrCat("Node-Name: ", address.node_name)};
  request.timeout = kDiscoveryTimeout;
  ASSIGN_OR_RETURN(HttpResponse response, http.Get(request));
  if (response.status == 404) {
    return absl::UnavailableError(
        absl::StrCat(response.status_text,
                     " (is this the controller's root url, and is its TCP port for "
                     "inbound agents switched on?)"));
  }
  if (response.status != 200) return absl::UnavailableError(response.status_text);
  if (!address.web_socket && !NamesAgentPort(response)) {
    return absl::UnavailableError(
        "answers, but names no agent port: it is no Jenkins or Hudson controller");
  }
  return response;
}

Discovery::Discovery(HttpClient& http, ControllerAddress address,
                     std::function<void(const std::string&)> on_waiting,
                     std::chrono::milliseconds first_delay)
    : http_(http),
      address_(std::move(address)),
      on_waiting_(std::move(on_waiting)),
      delay_(first_delay) {}

absl::StatusOr<std::string> Discovery::WaitForController() {
  for (;;) {
    std::vector<std::string> reasons;
    for (const std::string& url : address_.urls) {
      const absl::Status status = AskController(http_, address_, url).status();
      if (status.ok()) return url;
      if (absl::IsCancelled(status) || absl::IsInternal(status)) return status;
      const std::string reason = absl::StrCat(DisplayUrl(url), ": ", std::string(status.message()));
      if (absl::IsInvalidArgument(status)) return absl::InvalidArgumentError(reason);
      reasons.push_back(reason);
    }
    RETURN_IF_ERROR(WaitAfter(absl::StrJoin(reasons, "; ")));
  }
}

absl::Status Discovery::AskOnce() {
  std::vector<std::string> reasons;
  for (const std::string& url : address_.urls) {
    const absl::Status status = AskController(http_, address_, url).status();
    if (status.ok()) return absl::OkStatus();
    reasons.push_back(absl::StrCat(DisplayUrl(url), ": ", std::string(status.message())));
  }
  return absl::UnavailableError(absl::StrJoin(reasons, "; "));
}

absl::Status Discovery::WaitAfter(const std::string& reason) {
  if (reason != last_reason_) on_waiting_(reason);
  last_reason_ = reason;
  const std::chrono::milliseconds delay = delay_;
  delay_ = std::min<std::chrono::milliseconds>(delay_ * 2, kLongestRetryDelay);
  return http_.Wait(delay);
}

std::vector<std::string> JarUrls(const std::string& url) {
  std::vector<std::string> urls;
  for (const char* name : kJarNames) urls.push_back(Join(url, absl::StrCat("jnlpJars/", name)));
  return urls;
}

absl::StatusOr<FetchedJar> FetchAgentJar(
    HttpClient& http, const std::string& url, int fd,
    const std::map<std::string, JarValidators>& known,
    const std::function<void(const std::string&)>& on_fetching) {
  JarSink sink(fd);
  absl::Status last;
  std::vector<std::string> jar_urls = JarUrls(url);
  // The name under which this controller had it: older ones take their time to refuse the others.
  std::stable_partition(jar_urls.begin(), jar_urls.end(),
                        [&known](const std::string& jar_url) { return known.contains(jar_url); });
  for (const std::string& jar_url : jar_urls) {
    HttpRequest request;
    request.url = jar_url;
    const auto kept = known.find(jar_url);
    if (kept != known.end()) request.headers = Conditions(kept->second);
    request.timeout = kJarTimeout;
    request.on_body = [&sink](absl::string_view piece) { return sink.Write(piece); };
    on_fetching(DisplayUrl(request.url));
    RETURN_IF_ERROR(sink.Start());
    absl::StatusOr<HttpResponse> response = http.Get(request);
    RETURN_IF_ERROR(response.status(), DisplayUrl(request.url));
    if (response->status == 200) return FetchedJar{jar_url, false, ValidatorsOf(*response)};
    if (response->status == 304 && kept != known.end()) {
      return FetchedJar{jar_url, true, kept->second};
    }
    last = Annotate(JarAnswerError(*response), DisplayUrl(request.url));
    // Not 404 alone: the older controllers answer 500 for a name that they do not have.
    if (IsStarting(*response)) return last;
  }
  return last;
}

}  // namespace jenkins_agent
