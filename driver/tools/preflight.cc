#include "driver/tools/preflight.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/tools/fetch.h"
#include "driver/tools/task_client.h"

namespace jenkins_agent {
namespace {

constexpr int kMaxPort = 65535;

struct Port {
  std::string host;
  int number = 0;
};

std::string NameOf(const Port& port) { return absl::StrCat(port.host, ":", port.number); }

std::string HeaderOf(const HttpResponse& response, const std::string& name) {
  const auto found = response.headers.find(name);
  return found == response.headers.end() ? "" : found->second;
}

Port ParsePort(const std::string& text) {
  const size_t colon = text.rfind(':');
  Port port{text.substr(0, colon), 0};
  if (colon == std::string::npos || !absl::SimpleAtoi(text.substr(colon + 1), &port.number)) {
    port.number = 0;
  }
  return port;
}

Port AdvertisedPort(const std::string& url, const HttpResponse& response) {
  Port port{HeaderOf(response, "x-jenkins-jnlp-host"), 0};
  if (port.host.empty()) port.host = HostOfUrl(url);
  for (const char* name : {"x-jenkins-jnlp-port", "x-hudson-jnlp-port"}) {
    if (absl::SimpleAtoi(HeaderOf(response, name), &port.number)) break;
  }
  return port;
}

WayToController DescribePort(HttpClient& http, const std::string& before, const Port& port) {
  const std::string name = absl::StrCat("its agent port ", NameOf(port));
  if (port.number <= 0 || port.number > kMaxPort) {
    return {absl::StrCat(before, "but ", name, " is no TCP port")};
  }
  const absl::Status connected = http.Connect(port.host, port.number);
  if (connected.ok()) {
    return {absl::StrCat(before, "and ", name,
                         " accepts connections; what comes after that is in the agent's own log"),
            true};
  }
  return {absl::StrCat(before, "but ", name, " cannot be reached (", connected.message(),
                       "): open the port or set agent.tunnel")};
}

}  // namespace

WayToController DescribeWayToController(HttpClient& http, const PreflightRequest& request) {
  if (request.urls.empty()) {
    return DescribePort(http, "the controller is not asked over HTTP, ",
                        ParsePort(request.agent_port));
  }
  std::vector<std::string> reasons;
  for (const std::string& url : request.urls) {
    const absl::StatusOr<HttpResponse> answer =
        AskController(http, {request.urls, request.name, request.web_socket}, url);
    if (!answer.ok()) {
      reasons.push_back(absl::StrCat(DisplayUrl(url), ": ", answer.status().message()));
      continue;
    }
    if (!request.web_socket) {
      return DescribePort(http, "the controller answers HTTP 200, ",
                          request.agent_port.empty() ? AdvertisedPort(url, *answer)
                                                     : ParsePort(request.agent_port));
    }
    return {absl::StrCat(DisplayUrl(url),
                         " answers HTTP 200; what its WebSocket says is in the agent's own log"),
            true};
  }
  return {absl::StrJoin(reasons, "; ")};
}

namespace {

absl::Status Work(int in_fd, int out_fd) {
  ASSIGN_OR_RETURN(const std::string text, ReadRequestLine(in_fd));
  ASSIGN_OR_RETURN(const PreflightRequest request, ParsePreflightRequest(text));
  ASSIGN_OR_RETURN(const std::unique_ptr<HttpClient> http, BecomeClientInTask(request, in_fd));
  const WayToController way = DescribeWayToController(*http, request);
  const nlohmann::json answer = {{"line", way.line}, {"reached", way.reached}};
  return WriteAll(out_fd,
                  answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace

int RunPreflightWorker(int in_fd, int out_fd) { return Work(in_fd, out_fd).ok() ? 0 : 1; }

}  // namespace jenkins_agent
