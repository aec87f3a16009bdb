#include "driver/tools/request.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

using Json = nlohmann::json;

absl::Status Wrong(absl::string_view key, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("worker's request: '", key, "' ", what));
}

absl::Status ReadString(const Json& document, const char* key, std::string& value) {
  const auto found = document.find(key);
  if (found == document.end()) return absl::OkStatus();
  if (!found->is_string()) return Wrong(key, "must be a string");
  value = found->get<std::string>();
  for (const char c : value) {
    if (absl::ascii_iscntrl(c)) return Wrong(key, "must not hold control characters");
  }
  return absl::OkStatus();
}

absl::Status ReadUrls(const Json& document, std::vector<std::string>& urls) {
  const auto found = document.find("urls");
  if (found == document.end()) return absl::OkStatus();
  if (!found->is_array() || found->size() > kMaxUrls) {
    return Wrong("urls", absl::StrCat("must be a list of at most ", kMaxUrls));
  }
  for (const Json& url : *found) {
    if (!url.is_string() || !absl::StartsWithIgnoreCase(url.get<std::string>(), "http")) {
      return Wrong("urls", "must hold http or https urls");
    }
    urls.push_back(url.get<std::string>());
  }
  return absl::OkStatus();
}

// What every worker needs to get to the controller as the agent does.
template <typename Request>
absl::Status ReadWay(const Json& document, Request& request) {
  RETURN_IF_ERROR(ReadUrls(document, request.urls));
  RETURN_IF_ERROR(ReadString(document, "name", request.name));
  RETURN_IF_ERROR(ReadString(document, "network_namespace", request.network_namespace));
  RETURN_IF_ERROR(ReadString(document, "resolv_conf", request.resolv_conf));
  RETURN_IF_ERROR(ReadString(document, "ca_file", request.ca_file));
  if (const auto pid = document.find("root_pid"); pid != document.end()) {
    if (!pid->is_number_integer() || pid->get<int64_t>() < 0) {
      return Wrong("root_pid", "must be a process id");
    }
    request.root_pid = pid->get<int>();
  }
  if (const auto web_socket = document.find("web_socket"); web_socket != document.end()) {
    if (!web_socket->is_boolean()) return Wrong("web_socket", "must be true or false");
    request.web_socket = web_socket->get<bool>();
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> ParseDocument(absl::string_view line) {
  Json document = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return Wrong("(document)", "must be a JSON object on one line");
  return document;
}

}  // namespace

absl::StatusOr<std::string> ReadRequestLine(int fd) {
  std::string line;
  for (char c = 0; line.size() < kMaxRequestBytes; line += c) {
    const ssize_t count = ::read(fd, &c, 1);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus("read the request");
    if (count == 0 || c == '\n') return line;
  }
  return absl::InvalidArgumentError("the request is too long");
}

absl::StatusOr<AgentJarRequest> ParseAgentJarRequest(absl::string_view line) {
  ASSIGN_OR_RETURN(const Json document, ParseDocument(line));
  AgentJarRequest request;
  RETURN_IF_ERROR(ReadWay(document, request));
  RETURN_IF_ERROR(ReadString(document, "cache_dir", request.cache_dir));
  RETURN_IF_ERROR(ReadString(document, "file", request.file));
  RETURN_IF_ERROR(ReadString(document, "job", request.job));
  if (request.file.empty() && request.urls.empty()) return Wrong("urls", "is missing");
  if (request.file.empty() && request.cache_dir.empty()) return Wrong("cache_dir", "is missing");
  return request;
}

absl::StatusOr<PreflightRequest> ParsePreflightRequest(absl::string_view line) {
  ASSIGN_OR_RETURN(const Json document, ParseDocument(line));
  PreflightRequest request;
  RETURN_IF_ERROR(ReadWay(document, request));
  RETURN_IF_ERROR(ReadString(document, "agent_port", request.agent_port));
  if (request.urls.empty() && request.agent_port.empty()) return Wrong("urls", "is missing");
  return request;
}

}  // namespace jenkins_agent
