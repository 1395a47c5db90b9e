"""The serving core: versions, their registry, scoring and admission. Knows neither HTTP nor one engine."""
