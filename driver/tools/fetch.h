// Finding the controller and getting its agent.jar.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/tools/http.h"

namespace jenkins_agent {

inline constexpr size_t kMaxJarBytes = 64 << 20;

struct ControllerAddress {
  std::vector<std::string> urls;  // tried in order
  std::string node_name;          // header Node-Name, as the agent itself sends it
  bool web_socket = false;        // then /login must answer, and no agent port is needed
};

// One question as an agent asks it: the answer with the agent port's headers, or why this url is
// not ready. InvalidArgument: it never will be.
absl::StatusOr<HttpResponse> AskController(HttpClient& http, const ControllerAddress& address,
                                           const std::string& url);

// Asks the controllers as an agent does (GET <url>/tcpSlaveAgentListener/) until one is ready; its
// url. There is no limit in time: the caller cancels. `on_waiting` gets the reason, whenever it
// changes. Between the rounds: `first_delay`, doubled up to kLongestRetryDelay.
inline constexpr std::chrono::seconds kLongestRetryDelay{5};
class Discovery {
 public:
  Discovery(HttpClient& http, ControllerAddress address,
            std::function<void(const std::string&)> on_waiting,
            std::chrono::milliseconds first_delay = std::chrono::seconds(1));

  absl::StatusOr<std::string> WaitForController();
  // One round: OK when one of them is ready, else why they are not.
  absl::Status AskOnce();
  // Tells the reason and waits for the next round: for errors behind the discovery too.
  absl::Status WaitAfter(const std::string& reason);

 private:
  HttpClient& http_;
  const ControllerAddress address_;
  const std::function<void(const std::string&)> on_waiting_;
  std::chrono::milliseconds delay_;
  std::string last_reason_;
};

// What an answer said of its version; sent back with the next request for the same url (RFC 9110
// 13.1). Both may be empty.
struct JarValidators {
  std::string etag;
  std::string last_modified;

  bool empty() const { return etag.empty() && last_modified.empty(); }
};

// <url>/jnlpJars/agent.jar and the older names remoting.jar and slave.jar, in the order of trying.
std::vector<std::string> JarUrls(const std::string& url);

struct FetchedJar {
  std::string url;         // of JarUrls()
  bool unchanged = false;  // nothing was transferred: the jar that `known` stands for
  JarValidators validators;
};

// GETs the first of JarUrls() that the controller has into `fd` from its beginning. `known`: by
// url, what is kept already. `on_fetching` gets each url tried. Unavailable: worth another try.
absl::StatusOr<FetchedJar> FetchAgentJar(
    HttpClient& http, const std::string& url, int fd,
    const std::map<std::string, JarValidators>& known,
    const std::function<void(const std::string&)>& on_fetching);

}  // namespace jenkins_agent
