from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("history", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="EngineMark",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("engine", models.CharField(max_length=200, unique=True)),
                ("replay_id", models.BigIntegerField()),
                ("mark", models.BinaryField()),
                ("updated_at", models.DateTimeField()),
            ],
        ),
    ]
