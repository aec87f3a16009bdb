#include "driver/image/credentials.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/base/status.h"
#include "driver/base/subprocess.h"
#include "driver/image/json.h"

namespace jenkins_agent {
namespace {

constexpr char kHubKey[] = "https://index.docker.io/v1/";
constexpr std::chrono::seconds kHelperTimeout{10};
constexpr char kIdentityUser[] = "<token>";  // a helper's user name beside an identity token

// Under which keys docker's tools write a host.
std::string HelperKey(const std::string& host) { return host == "docker.io" ? kHubKey : host; }

// "https://host/v1/" -> "host"; "host/path" stays.
std::string NormalKey(absl::string_view key) {
  if (key == kHubKey) return "docker.io";
  if (!absl::ConsumePrefix(&key, "https://")) absl::ConsumePrefix(&key, "http://");
  absl::ConsumeSuffix(&key, "/");
  if (!absl::ConsumeSuffix(&key, "/v1")) absl::ConsumeSuffix(&key, "/v2");
  return std::string(key);
}

bool Covers(const std::string& key, const std::string& name) {
  return key == name || absl::StartsWith(name, key + "/");
}

absl::StatusOr<Credentials> ReadAuth(const Json& entry) {
  Credentials found;
  std::string auth;
  RETURN_IF_ERROR(ReadMember(entry, "auth", auth));
  RETURN_IF_ERROR(ReadMember(entry, "username", found.user));
  RETURN_IF_ERROR(ReadMember(entry, "password", found.password));
  RETURN_IF_ERROR(ReadMember(entry, "identitytoken", found.identity_token));
  if (!auth.empty()) {
    std::string plain;
    if (!absl::Base64Unescape(auth, &plain) || !absl::StrContains(plain, ':')) {
      return absl::InvalidArgumentError("'auth' is not user:password in base64");
    }
    found.user = plain.substr(0, plain.find(':'));
    found.password = plain.substr(plain.find(':') + 1);
  }
  return found;
}

bool IsHelperName(absl::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

absl::StatusOr<std::string> FindHelper(const std::string& helper) {
  if (!IsHelperName(helper)) return absl::InvalidArgumentError("its name is none");
  for (const char* dir : {"/usr/local/bin", "/usr/bin", "/bin"}) {
    const std::string path = absl::StrCat(dir, "/docker-credential-", helper);
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return absl::NotFoundError("it is not installed in /usr/local/bin or /usr/bin");
}

}  // namespace

absl::StatusOr<CredentialSource> FindCredentials(absl::string_view config, const std::string& host,
                                                 const std::string& repository) {
  ASSIGN_OR_RETURN(const Json document, ParseJsonObject(config));
  CredentialSource source;
  if (const auto helpers = document.find("credHelpers");
      helpers != document.end() && helpers->is_object()) {
    RETURN_IF_ERROR(ReadMember(*helpers, HelperKey(host).c_str(), source.helper), "'credHelpers'");
    RETURN_IF_ERROR(ReadMember(*helpers, host.c_str(), source.helper), "'credHelpers'");
  }
  if (source.helper.empty()) RETURN_IF_ERROR(ReadMember(document, "credsStore", source.helper));
  if (!source.helper.empty()) return source;
  const auto auths = document.find("auths");
  if (auths == document.end() || !auths->is_object()) return source;
  size_t best = 0;
  for (const auto& [key, entry] : auths->items()) {
    const std::string normal = NormalKey(key);
    if (!entry.is_object() || normal.size() <= best ||
        !Covers(normal, absl::StrCat(host, "/", repository))) {
      continue;
    }
    ASSIGN_OR_RETURN(const Credentials found, ReadAuth(entry), "'auths' for ", host);
    if (found.user.empty() && found.identity_token.empty()) continue;
    source.credentials = found;
    best = normal.size();
  }
  return source;
}

absl::StatusOr<std::optional<Credentials>> AskCredentialHelper(const std::string& helper,
                                                               const std::string& host) {
  const std::string context = absl::StrCat("credential helper '", absl::CHexEscape(helper), "'");
  ASSIGN_OR_RETURN(const std::string program, FindHelper(helper), context);
  RunOptions options;
  options.timeout = kHelperTimeout;
  options.stdin_data = HelperKey(host);
  options.env = {"PATH=/usr/local/bin:/usr/bin:/bin"};
  if (const char* home = ::getenv("HOME")) options.env.push_back(absl::StrCat("HOME=", home));
  ASSIGN_OR_RETURN(const RunResult result, Run({program, "get"}, options), context);
  if (result.exit.exit_code != 0) {
    if (absl::StrContains(result.output, "credentials not found")) {
      return std::optional<Credentials>();
    }
    return absl::UnavailableError(
        absl::StrCat(context, " failed with exit code ", result.exit.exit_code));
  }
  ASSIGN_OR_RETURN(const Json answer, ParseJsonObject(result.output), context);
  Credentials found;
  RETURN_IF_ERROR(ReadMember(answer, "Username", found.user), context);
  RETURN_IF_ERROR(ReadMember(answer, "Secret", found.password), context);
  if (found.user == kIdentityUser) {
    found.user.clear();
    found.identity_token = std::exchange(found.password, "");
  }
  return std::optional<Credentials>(found);
}

}  // namespace jenkins_agent
