#include "driver/image/image_job.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "driver/base/utf8.h"
#include "driver/image/json.h"

namespace jenkins_agent {
namespace {

std::string Line(const Json& document) {
  return document.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::Status ReadFlag(const Json& object, const char* key, bool& value) {
  const auto found = object.find(key);
  if (found == object.end()) return absl::OkStatus();
  if (!found->is_boolean()) {
    return absl::InvalidArgumentError(absl::StrCat("'", key, "' must be true or false"));
  }
  value = found->get<bool>();
  return absl::OkStatus();
}

absl::Status ReadCount(const Json& object, const char* key, int& value) {
  int64_t number = value;
  RETURN_IF_ERROR(ReadMember(object, key, number));
  if (number < 0 || number > static_cast<int64_t>(kMaxLayers)) {
    return absl::InvalidArgumentError(absl::StrCat("'", key, "' is no number of layers"));
  }
  value = static_cast<int>(number);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Credentials>> ReadCredentials(const Json& document) {
  const auto found = document.find("credentials");
  if (found == document.end()) return std::optional<Credentials>();
  if (!found->is_object()) return absl::InvalidArgumentError("'credentials' must be an object");
  Credentials credentials;
  RETURN_IF_ERROR(ReadMember(*found, "user", credentials.user));
  RETURN_IF_ERROR(ReadMember(*found, "password", credentials.password));
  RETURN_IF_ERROR(ReadMember(*found, "identity_token", credentials.identity_token));
  return std::optional<Credentials>(credentials);
}

absl::StatusOr<ImageJob> ReadJob(absl::string_view line) {
  ASSIGN_OR_RETURN(const Json document, ParseJsonObject(line));
  ImageJob job;
  RETURN_IF_ERROR(ReadMember(document, "store", job.store));
  RETURN_IF_ERROR(ReadMember(document, "image", job.image));
  RETURN_IF_ERROR(ReadFlag(document, "plain_http", job.plain_http));
  RETURN_IF_ERROR(ReadMember(document, "ca_file", job.ca_file));
  RETURN_IF_ERROR(ReadMember(document, "mirrors", job.mirrors));
  ASSIGN_OR_RETURN(job.credentials, ReadCredentials(document));
  RETURN_IF_ERROR(ReadMember(document, "auth_file", job.auth_file));
  RETURN_IF_ERROR(ReadMember(document, "auth_helper", job.auth_helper));
  RETURN_IF_ERROR(ReadFlag(document, "sync", job.sync));
  for (const std::string* path : {&job.store, &job.ca_file, &job.auth_file}) {
    if (!path->empty() && !absl::StartsWith(*path, "/")) {
      return absl::InvalidArgumentError("a path is not absolute");
    }
  }
  if (job.store.empty()) return absl::InvalidArgumentError("'store' is missing");
  if (job.image.empty()) return absl::InvalidArgumentError("'image' is missing");
  return job;
}

absl::StatusOr<ImageReport> ReadReport(absl::string_view line) {
  ASSIGN_OR_RETURN(const Json document, ParseJsonObject(line));
  ImageReport report;
  PullProgress& progress = report.result.progress;
  int64_t code = 0;
  std::string manifest, error;
  RETURN_IF_ERROR(ReadFlag(document, "finished", report.finished));
  RETURN_IF_ERROR(ReadFlag(document, "cached", report.result.cached));
  RETURN_IF_ERROR(ReadCount(document, "layers", progress.layers));
  RETURN_IF_ERROR(ReadCount(document, "cached_layers", progress.cached_layers));
  RETURN_IF_ERROR(ReadCount(document, "done_layers", progress.done_layers));
  RETURN_IF_ERROR(ReadMember(document, "bytes", progress.bytes));
  RETURN_IF_ERROR(ReadMember(document, "done_bytes", progress.done_bytes));
  RETURN_IF_ERROR(ReadMember(document, "code", code));
  RETURN_IF_ERROR(ReadMember(document, "error", error));
  RETURN_IF_ERROR(ReadMember(document, "manifest", manifest));
  if (!report.finished) return report;
  if (code != 0) {
    report.status = absl::Status(static_cast<absl::StatusCode>(code), error);
    return report;
  }
  ASSIGN_OR_RETURN(report.result.manifest, Digest::Parse(manifest));
  return report;
}

}  // namespace

std::string ImageJobLine(const ImageJob& job) {
  Json document = {{"store", job.store},
                   {"image", job.image},
                   {"plain_http", job.plain_http},
                   {"ca_file", job.ca_file},
                   {"mirrors", job.mirrors},
                   {"auth_file", job.auth_file},
                   {"auth_helper", job.auth_helper},
                   {"sync", job.sync}};
  if (job.credentials.has_value()) {
    document["credentials"] = {{"user", job.credentials->user},
                               {"password", job.credentials->password},
                               {"identity_token", job.credentials->identity_token}};
  }
  return Line(document);
}

absl::StatusOr<ImageJob> ParseImageJob(absl::string_view line) {
  absl::StatusOr<ImageJob> job = ReadJob(line);
  if (!job.ok()) return Annotate(job.status(), "image-pull request");
  return job;
}

std::string ImageReportLine(const ImageReport& report) {
  const PullProgress& progress = report.result.progress;
  Json document = {{"layers", progress.layers},           {"cached_layers", progress.cached_layers},
                   {"done_layers", progress.done_layers}, {"bytes", progress.bytes},
                   {"done_bytes", progress.done_bytes},   {"finished", report.finished}};
  if (report.finished && report.status.ok()) {
    document["manifest"] = report.result.manifest.ToString();
    document["cached"] = report.result.cached;
  } else if (report.finished) {
    document["code"] = static_cast<int>(report.status.code());
    // From registries and layers: bounded, and to be shown.
    document["error"] = ToUtf8(report.status.message().substr(0, kMaxImageLineBytes / 8));
  }
  return Line(document);
}

absl::StatusOr<ImageReport> ParseImageReport(absl::string_view line) {
  absl::StatusOr<ImageReport> report = ReadReport(line);
  if (!report.ok()) return Annotate(report.status(), "the image worker's report");
  return report;
}

}  // namespace jenkins_agent
