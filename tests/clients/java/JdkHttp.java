// The JDK's HttpClient with its defaults, which offer HTTP/2 by an upgrade on plain HTTP: a stream and a tool call on chat.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

public class JdkHttp {
    static final HttpClient CLIENT = HttpClient.newHttpClient();
    static final String ASK = "{\"role\": \"user\", \"content\": \"Remember the word marmalade\"}";
    static final String CALL = "{\"role\": \"user\", \"content\": \"call tool add with {\\\"a\\\": 40, \\\"b\\\": 2}\"}";
    static final String TOOLS = "[{\"type\": \"function\", \"function\": {\"name\": \"add\", \"parameters\": {\"type\": \"object\","
            + " \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": \"integer\"}}}}}]";

    static HttpRequest request(String messages, String more) {
        String body = "{\"model\": \"cfx-code\", \"messages\": [" + messages + "]" + more + "}";
        return HttpRequest.newBuilder(URI.create(System.getenv("CFX_BASE_URL") + "/chat/completions"))
                .header("Authorization", "Bearer " + System.getenv("CFX_API_KEY"))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build();
    }

    static String found(String pattern, String text) {
        Matcher matcher = Pattern.compile(pattern).matcher(text);
        if (!matcher.find()) throw new IllegalStateException(pattern + " is not in " + text);
        return matcher.group(1);
    }

    public static void main(String[] arguments) throws Exception {
        HttpResponse<java.util.stream.Stream<String>> stream =
                CLIENT.send(request(ASK, ", \"stream\": true"), HttpResponse.BodyHandlers.ofLines());
        List<String> pieces = stream.body()
                .filter(line -> line.startsWith("data: {"))
                .map(line -> Pattern.compile("\"delta\":\\{\"content\":(\"[^\"]*\")").matcher(line))
                .filter(Matcher::find)
                .map(matcher -> matcher.group(1))
                .collect(Collectors.toList());
        HttpResponse<String> asked =
                CLIENT.send(request(CALL, ", \"tools\": " + TOOLS), HttpResponse.BodyHandlers.ofString());
        String id = found("\"id\":\\s*\"(call_[^\"]*)\"", asked.body());
        String given = found("\"arguments\":\\s*\"((?:[^\"\\\\]|\\\\.)*)\"", asked.body());
        int a = Integer.parseInt(found("a\\D+(\\d+)", given)), b = Integer.parseInt(found("b\\D+(\\d+)", given));
        String call = "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"" + id + "\", \"type\": \"function\","
                + " \"function\": {\"name\": \"add\", \"arguments\": \"" + given + "\"}}]}";
        String result = "{\"role\": \"tool\", \"tool_call_id\": \"" + id + "\", \"content\": \"sum=" + (a + b) + "\"}";
        HttpResponse<String> answered = CLIENT.send(
                request(CALL + ", " + call + ", " + result, ", \"tools\": " + TOOLS), HttpResponse.BodyHandlers.ofString());
        String tool = found("\"content\":\\s*\"((?:[^\"\\\\]|\\\\.)*)\"", answered.body());
        System.out.println("{\"version\": \"" + System.getProperty("java.version") + "\", \"chat\": {\"pieces\": ["
                + String.join(", ", pieces) + "], \"tool\": \"" + tool + "\", \"note\": \"spoke " + stream.version() + "\"}}");
    }
}
